#!/usr/bin/env python
"""Train an image classifier and export it as a frozen graph.

  python run.py, or run.py train     train model_arch on the images under train_path, then export it
  python run.py evaluate             evaluate the exported graph on the test images, with figures
  python run.py predict IMAGE ...    classify images, or all those in a folder, with the exported graph
  python run.py convert              convert the exported graph to TensorFlow Lite, SavedModel and ONNX
  tensorboard --logdir graphs        show the learning curves in a browser
  python run.py launch --workers 2   train in two processes together
  python run.py --resume             resume the latest run where it was interrupted
  python run.py runs                 list the runs: model, data, epochs, accuracy, where the graph is, megabytes
  python run.py explain IMAGE ...    draw Grad-CAM heat maps of an image's top classes
  python run.py find_lr              find a learning rate, with a short training that saves nothing
  python run.py check                report corrupt, duplicate and unusual images, and uneven classes
  python run.py export               export the best checkpoint of the latest run, without training
  python run.py summary              list the layers of model_arch, their parameters and multiply-adds
  python run.py split FOLDER         make a data set: train and test from one folder of class folders
  python run.py prepare digits       make a data set: data/digitspng, 1,797 handwritten digits, no download
  python run.py prepare cifar10      make a data set: data/cifar10png, 60,000 photos, downloads 170 MB

Options of a command: python run.py evaluate --help

Each setting of src/config.py can be overridden for one run, for example
  python run.py --train_path data/digitspng/train --test_path data/digitspng/test --num_epoch 30
"""

from utils.start import guarded_imports

with guarded_imports(__name__):
    import importlib
    import os
    import sys
    from collections import namedtuple

    from src.config import MODEL_ARCHS
    from src.console import restart_in_utf8, say
    from src.errors import InputError, did_you_mean
    from src.folders import is_folder
    from src.gpu import hidden_gpus
    from src.rules import MOST_CLASSES, shortened
    from src.settings import SETTINGS, settings, settings_for, with_role
    from src.signals import ends_at_once
    from utils.checkpoints.keras_file import check_exists
    from utils.command_line import TRUST_GRAPH, Parser, at_least, end_process, exit_code, fraction, option
    from utils.files import make_writable
    from utils.locks import locked

# A command is declared here and implemented by run(config, overrides, **options) in utils/commands/<its name>.py:
# `overrides` are the settings on the command line, and `config` all settings that the command needs, as returned by
# `check`. Those `of_the_run` are by default those of the graph's run; settings not listed belong to the graph.
Command = namedtuple("Command", "help options settings of_the_run usage check")


def command(help, options=(), settings=(), of_the_run=(), usage="[--OPTION VALUE ...]", check=None):
    check = check or (lambda options, overrides: settings_for(settings, overrides))
    return Command(help, options, settings, of_the_run, usage, check)


def check_train(options, overrides):
    if "run" in options and "resume" not in options:
        raise InputError("--run", f"{options['run']} without --resume", "both")
    # A resumed run has its own settings.
    config = settings_for(["model_arch", *with_role("output_dir")] if "resume" in options else SETTINGS, overrides)
    if not os.environ.get("TF_CONFIG"):
        make_writable("checkpoint_dir", config.checkpoint_dir)
        with locked("checkpoint_dir", config.checkpoint_dir):
            pass
        announce(config, "resume" in options)
    return config


def announce(config, resume):
    """Print what will be trained, before TensorFlow is imported."""
    what = f"resuming a run of {config.model_arch} in {config.checkpoint_dir}"
    if not resume:
        check_exists("setting pretrained", config.pretrained)
        if not is_folder(config.train_path):
            return  # which will be reported
        epochs = f"{config.num_epoch} epoch{'s' * (config.num_epoch > 1)}"
        what = f"{config.model_arch} of {config.img_size} px on {config.train_path}, {epochs}"
    say(f"{what}; graph to {config.weight_dir}, logs to {config.tensorboard_dir}; starting TensorFlow")


def check_launch(options, overrides):
    return settings(**overrides)


def check_find_lr(options, overrides):
    if os.environ.get("TF_CONFIG"):
        raise InputError("TF_CONFIG", "a cluster", "none: find_lr trains in this process alone")
    config = settings(**overrides)
    check_exists("setting pretrained", config.pretrained)
    return config


def check_evaluate(options, overrides):
    if "checkpoint" in options and "weights" in options:
        raise InputError("--checkpoint", f"{options['checkpoint']} beside --weights", "one of them")
    return settings_for((*EVALUATE_SETTINGS, "checkpoint_dir"), overrides)


def check_runs(options, overrides):
    archs = [overrides["model_arch"]] if "model_arch" in overrides else MODEL_ARCHS
    configs = [settings_for(EXPORT_SETTINGS, dict(overrides, model_arch=name)) for name in archs]
    if "folders" not in options:
        return configs
    found = [
        dict(vars(config), checkpoint_dir=path)
        for folder in dict.fromkeys(options.pop("folders"))
        for config in configs
        for path in checkpoint_dirs(folder, config.model_arch)
    ]
    return [settings_for(EXPORT_SETTINGS, given) for given in found]


def checkpoint_dirs(folder, model_arch):
    """Where a folder may have runs of a network: in itself, as a folder of several networks, or as a project."""
    if not os.path.isdir(folder):
        raise InputError("runs", f"no folder {folder}", "one with runs, such as another checkpoint_dir")
    below = [os.path.join(folder, model_arch), os.path.join(folder, "checkpoints", model_arch)]
    return [folder, *filter(os.path.isdir, below)]


def check_summary(options, overrides):
    total_class = overrides.pop("total_class", None)
    if total_class is not None and not 2 <= total_class <= MOST_CLASSES:
        limits = "2 or more" if total_class < 2 else f"2 to {MOST_CLASSES}"
        raise InputError("--total_class", shortened(total_class), limits)
    names = (*SUMMARY_SETTINGS, "total_class", "batch_norm_momentum", "seed")
    total_class = total_class or settings_for(names, overrides).total_class or 10
    classes = [str(number) for number in range(total_class)]
    return settings_for(names, dict(overrides, classes=classes, total_class=total_class))


def check_prepare(options, overrides):
    if options["dataset"] == "digits" and "archive" in options:
        raise InputError("--archive", options["archive"], "none for digits, which are not downloaded")


WEIGHTS = option(
    "--weights",
    help="a frozen graph with its JSON beside it (default weights/<model_arch>/<model_arch>.pb)",
    metavar="FILE.pb",
)
IMAGES = option("images", help="image files, or folders of images", nargs="+", metavar="IMAGE_OR_FOLDER")
RESUME = [
    option("--resume", help="resume the latest run of model_arch where it was interrupted", action="store_true"),
    option("--run", help="with --resume: that run, by the name that python run.py runs lists", metavar="NAME"),
]
EXPORT_SETTINGS = ("model_arch", "checkpoint_dir", "weight_dir")
GRAPH_SETTINGS = ("model_arch", "weight_dir", "device")
EVALUATE_SETTINGS = (*GRAPH_SETTINGS, "test_path", "bad_images", "tensorboard_dir")
CHECK_SETTINGS = ("train_path", "valid_path", "test_path", "classes", "model_arch", "img_size", "transparency")
SUMMARY_SETTINGS = ("model_arch", "img_size", "numchannels", "width", "strides", "train_path", "classes")

# fmt: off
COMMANDS = {
    "train": command("Train for num_epoch epochs, then export the best of them.", RESUME, SETTINGS,
        usage="[--resume] [--SETTING VALUE ...]", check=check_train),
    "launch": command(
        "Train in several processes on this machine: one per GPU, or sharing the CPU.",
        [
            at_least(1, "--workers", help="number of processes", metavar="COUNT", required=True),
            at_least(0, "--max_restarts", help="restarts of all workers after one dies (default 3)", metavar="COUNT"),
            *RESUME,
        ],
        SETTINGS, usage="--workers COUNT [--max_restarts COUNT] [--resume] [--SETTING VALUE ...]", check=check_launch),
    "find_lr": command("Find a learning rate: train for a few steps with a rising one, and save nothing but a figure.",
        [option("--output", help="where to write the figure (default learning_rate.png)", metavar="FILE.png")],
        SETTINGS, usage="[--output FILE.png] [--SETTING VALUE ...]", check=check_find_lr),
    "evaluate": command("Evaluate the exported graph on the test images of its run.",
        [
            WEIGHTS,
            option("--checkpoint", help="a checkpoint instead, such as checkpoints/lenet5/RUN/lenet5-1110",
                metavar="PREFIX"),
            option("--flip", action="store_true",
                help="also evaluate test-time augmentation: average over each image and its horizontal flip"),
            TRUST_GRAPH,
        ],
        EVALUATE_SETTINGS, of_the_run=("test_path", "bad_images", "tensorboard_dir"), check=check_evaluate),
    "predict": command("Classify images with a frozen graph, which needs only its .pb and the JSON beside it.",
        [
            IMAGES,
            at_least(1, "--top", help="classes to show per image (default 5; with --json, all)", metavar="COUNT"),
            option("--json", help="print a line of JSON per image", action="store_true"),
            WEIGHTS,
            TRUST_GRAPH,
        ],
        GRAPH_SETTINGS, usage="IMAGE_OR_FOLDER ... [--OPTION VALUE ...]"),
    "explain": command("Draw Grad-CAM heat maps of an image's three top classes.",
        [
            IMAGES,
            option("--output", help="where to write the figure (default explanation.png)", metavar="FILE.png"),
            WEIGHTS,
            TRUST_GRAPH,
        ],
        GRAPH_SETTINGS, usage="IMAGE_OR_FOLDER ... [--OPTION VALUE ...]"),
    "check": command("Read all training, validation and test images, and report corrupt, duplicate and unusual ones.",
        [option("--output", help="where to write the figure (default samples.png)", metavar="FILE.png")],
        CHECK_SETTINGS),
    "export": command(
        "Export the best checkpoint of a run, without training, for evaluate, predict and convert.",
        [
            option("--last", help="the latest checkpoint instead of the best", action="store_true"),
            option("--run", help="an earlier run, by the name that python run.py runs lists", metavar="NAME"),
        ],
        EXPORT_SETTINGS),
    "runs": command(
        "List the runs that have checkpoints: model, data, epochs, best validation accuracy, graph, megabytes.",
        [option("folders", help="other folders to look in (default: checkpoint_dir)", nargs="*", metavar="FOLDER")],
        EXPORT_SETTINGS, usage="[FOLDER ...] [--OPTION VALUE ...]", check=check_runs),
    "summary": command("List the layers of a network: output shape, parameters, and multiply-adds for one image.",
        [option("--total_class", type=int, metavar="COUNT", help="number of classes (default: train_path's, or 10)")],
        SUMMARY_SETTINGS, check=check_summary),
    "split": command("Make a data set from one folder of class folders: train and test, by links or copies.",
        [
            option("folder", help="a folder with one folder of images per class", metavar="FOLDER"),
            option("--output", help="the folder to make (default: one of that name in data/)", metavar="FOLDER"),
            fraction("--test_size", help="fraction of each class for testing (default 0.2)", metavar="FRACTION"),
        ],
        ("seed",), usage="FOLDER [--output FOLDER] [--test_size FRACTION] [--seed NUMBER]",
        check=lambda options, overrides: settings_for(("model_arch", "seed"), overrides)),
    "prepare": command("Make a data set: digits (no download) or cifar10 (downloads 170 MB).",
        [
            option("dataset", help="digits or cifar10", choices=["digits", "cifar10"], metavar="DATASET"),
            option("--archive", help="cifar10: a local copy of the archive, instead of downloading it", metavar="FILE"),
        ],
        usage="DATASET [--archive FILE]", check=check_prepare),
}
# fmt: on
SYNONYMS = {  # what other programs call these
    "test": "evaluate",
    "eval": "evaluate",
    "val": "evaluate",
    "valid": "evaluate",
    "validate": "evaluate",
    "infer": "predict",
    "inference": "predict",
    "classify": "predict",
    "fit": "train",
    "lr_find": "find_lr",
    "resume": "train --resume",
    "ls": "runs",
    "list": "runs",
    "freeze": "export",
    "gradcam": "explain",
    "data": "prepare",
    "help": "--help",
}


def main(argv=None):
    """Run the command line; returns its ExitCode."""
    return exit_code(lambda: run(sys.argv[1:] if argv is None else argv))


def run(words):
    name = words[0] if words and not words[0].startswith("-") else None
    if name == "convert":
        return importlib.import_module("convert.__main__").main(words[1:])
    if name and name not in COMMANDS:
        raise InputError(f"unknown command {name}", hint=suggested_command(name))
    chosen = COMMANDS[name or "train"]
    parser = Parser(
        prog="python run.py" + (f" {name}" if name else ""),
        usage=f"%(prog)s {chosen.usage}",
        description=chosen.help if name else __doc__,
    )
    for names, about in chosen.options:
        parser.add_argument(*names, **about)
    parser.add_settings(chosen.settings, chosen.of_the_run)
    options = parser.parse(words[1:] if name else words)
    overrides = {name: options.pop(name) for name in SETTINGS if name in options}
    config = chosen.check(options, overrides)
    with ends_at_once("interrupted before it had started"):  # TensorFlow is imported, which takes seconds
        module = importlib.import_module(f"utils.commands.{name or 'train'}")
    # A resumed run has its own device, unless another is given.
    with hidden_gpus(overrides.get("device", getattr(config, "device", None))):
        return module.run(config, overrides, **options)


def suggested_command(name):
    """A hint at the command that is meant by `name`."""
    if name == "tensorboard":
        return "that is a program of its own: tensorboard --logdir graphs"
    if name in SYNONYMS:
        return f"did you mean python run.py {SYNONYMS[name]}?"
    return did_you_mean(name, [*COMMANDS, "convert"]) or "python run.py --help lists them"


if __name__ == "__main__":
    restart_in_utf8()
    end_process(main())
