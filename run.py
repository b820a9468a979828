#!/usr/bin/env python
"""Train an image classifier and export it as a frozen graph.

  python run.py, or run.py train     train model_arch on the images under train_path, then export it
  python run.py evaluate             evaluate the exported graph on the test images, with pictures
  python run.py predict IMAGE ...    classify images, or all those in a folder, with the exported graph
  python run.py launch --workers 2   train in two processes together
  python run.py --resume             go on with the newest run, where it was interrupted
  python run.py runs                 list the runs: model, data, epochs, accuracy, where the graph is, megabytes
  python run.py explain IMAGE ...    draw what in an image speaks for its best classes
  python run.py check                look for broken, doubled and odd images, and for uneven classes
  python run.py export               export the best checkpoint of the newest run, without training
  python run.py summary              the layers of model_arch, their parameters and multiply-adds
  python run.py prepare digits       make a data set: data/digitspng, 1,797 handwritten digits, no download
  python run.py prepare cifar10      make a data set: data/cifar10png, 60,000 photos, downloads 170 MB

Each of them explains its options: python run.py evaluate --help

Each setting of src/config.py can be given for one run, for example
  python run.py --train_path data/digitspng/train --test_path data/digitspng/test --num_epoch 30
"""

import os
import shlex
import sys
from collections import namedtuple

from src.config import MODEL_ARCHS
from src.errors import InputError, did_you_mean, escape_control_characters, say
from src.settings import FOLDERS, MOST_CLASSES, RULES, settings, settings_for, shortened
from utils.command_line import TRUST_GRAPH, Parser, end_process, end_with_the_reader, exit_code, in_utf8, option
from utils.files import is_in, make_writable
from utils.locks import locked

# A verb: its function, which gets what is given of its options and settings. Those `of_the_run` are by default as the
# run of the weights had them; settings that a verb does not take belong to the weights, which bring theirs.
Verb = namedtuple("Verb", "function options settings of_the_run usage")
VERBS = {}


def verb(options=(), settings=(), of_the_run=(), usage="[--OPTION VALUE ...]"):
    """Declare the function below to be a verb."""

    def declare(function):
        VERBS[function.__name__] = Verb(function, options, settings, of_the_run, usage)
        return function

    return declare


def main(argv=None):
    """Run the command line; returns the exit code: 0 done, 1 done but for broken images, 2 bad input, 130 Ctrl-C."""
    return exit_code(lambda: run(sys.argv[1:] if argv is None else argv))


def run(words):
    name = words[0] if words and not words[0].startswith("-") else None
    if name and name not in VERBS:
        hint = did_you_mean(name, VERBS) or "; python run.py --help lists them"
        raise InputError(f"unknown command {name}{hint}")
    chosen = VERBS[name or "train"]
    parser = Parser(
        prog="python run.py" + (f" {name}" if name else ""),
        usage=f"%(prog)s {chosen.usage}",
        description=chosen.function.__doc__ if name else __doc__,
    )
    for names, about in chosen.options:
        parser.add_argument(*names, **about)
    parser.add_settings(chosen.settings, chosen.of_the_run)
    return chosen.function(**parser.parse(words[1:] if name else words))


WEIGHTS = option(
    "--weights",
    help="a frozen graph with its JSON beside it (default weights/<model_arch>/<model_arch>.pb)",
    metavar="FILE.pb",
)
EXPORT_SETTINGS = ("model_arch", "checkpoint_dir", "weight_dir")
GRAPH_SETTINGS = ("model_arch", "weight_dir", "device")
EVALUATE_SETTINGS = (*GRAPH_SETTINGS, "test_path", "bad_images", "tensorboard_dir")
SETS = ("train_path", "valid_path", "test_path")
SUMMARY_SETTINGS = ("model_arch", "img_size", "width", "strides", "train_path", "classes")


RESUME = [
    option("--resume", help="go on with the newest run of model_arch, where it was interrupted", action="store_true"),
    option("--run", help="with --resume: that run, by the name that python run.py runs lists", metavar="NAME"),
]


@verb(RESUME, settings=RULES, usage="[--resume] [--SETTING VALUE ...]")
def train(resume=False, run=None, **given):
    """Train for num_epoch epochs, then export the best of them."""
    if run is not None and not resume:
        raise InputError(f"--run: found {run} without --resume, expected both")
    # What is wrong is said before TensorFlow is imported, which takes seconds. A run that is resumed has its own.
    now = settings_for(["model_arch", *FOLDERS] if resume else RULES, given)
    if not os.environ.get("TF_CONFIG"):
        make_writable("checkpoint_dir", now.checkpoint_dir)
        with locked("checkpoint_dir", now.checkpoint_dir):
            pass
    from trainer import Trainer
    from utils.checkpoints import best_entry
    from utils.command_line import print_stopped, program

    trainer = Trainer(resume=resume and (run or True), **given)
    try:
        if trainer.epochs_left():
            trainer.optimize()
        graph = trainer.export()
    except (KeyboardInterrupt, SystemExit):
        if trainer.cluster.is_chief:
            print_stopped(trainer, given)
        raise
    finally:
        trainer.close()
    if not trainer.cluster.is_chief:
        return 0
    best = best_entry(trainer.history)
    say(f"best epoch       {best['epoch']}, validation accuracy {best['val_acc']:.4f}")
    say(f"graph            {graph}")
    say(f"checkpoints      {trainer.checkpoints.folder}")
    say(f"TensorBoard logs {trainer.run_folder}")
    default = trainer.config.tensorboard_dir == f"graphs/{trainer.config.model_arch}"
    logdir = "graphs" if default else trainer.config.tensorboard_dir
    say(f"to see the curves: {program('tensorboard')} --logdir {shlex.quote(logdir)}")
    return 2 if trainer.log_error else 0


@verb(
    [
        option("--workers", help="processes that train together", type=int, metavar="COUNT", required=True),
        option("--max_restarts", help="when one dies, start all again so often (default 3)", type=int, metavar="COUNT"),
        *RESUME,
    ],
    settings=RULES,
    usage="--workers COUNT [--max_restarts COUNT] [--resume] [--SETTING VALUE ...]",
)
def launch(workers, max_restarts=3, resume=False, run=None, **given):
    """Train in several processes of this machine, as train does in one: one for each GPU, or sharing the processors."""
    for name, value, least in (("workers", workers, 1), ("max_restarts", max_restarts, 0)):
        if value < least:
            raise InputError(f"--{name}: found {value}, expected {least} or more")
    now = settings(**given)
    from utils.cluster.launch import launch as launch_all
    from utils.command_line import words_of

    options = given if run is None else dict(given, run=run)
    command = [os.path.abspath(__file__)] + ["--resume"] * resume + words_of(options)
    return launch_all(command, now, workers, max_restarts)


@verb(
    [
        WEIGHTS,
        option(
            "--checkpoint", help="a checkpoint instead, such as checkpoints/lenet5/RUN/lenet5-1110", metavar="PREFIX"
        ),
        option("--flip", help="judge the means over each image and its mirror image as well", action="store_true"),
        TRUST_GRAPH,
    ],
    settings=EVALUATE_SETTINGS,
    of_the_run=["test_path", "bad_images", "tensorboard_dir"],
)
def evaluate(weights=None, checkpoint=None, flip=False, trust_graph=False, **given):
    """Evaluate the exported graph on the test images of the run that made it."""
    end_with_the_reader()
    if weights is not None and checkpoint is not None:
        raise InputError(f"--checkpoint: found {checkpoint} beside --weights, expected one of them")
    now = settings_for((*EVALUATE_SETTINGS, "checkpoint_dir"), given)
    from convert.freeze import frozen_graph, graph_path, make_metadata
    from dataset import read_test_set
    from utils.checkpoints import Checkpoints
    from utils.predictor import Predictor, image_paths, image_settings, load
    from utils.report import predict_dataset, settings_of_graph, write_page, write_report
    from utils.runs import settings_of_run
    from utils.tensorboard import new_run_folder

    if checkpoint is not None:
        trained, values, origin = Checkpoints(os.path.dirname(checkpoint)).load(checkpoint)
        graph_def, metadata = frozen_graph(trained, values), make_metadata(trained, origin)
        predictor = Predictor(graph_def, metadata, checkpoint, now.device, trusted=True)
    else:
        predictor = load(graph_path(now) if weights is None else weights, trust_graph, now.device)
    config = image_settings(predictor.metadata, **image_paths(predictor.metadata, given, now))
    data = read_test_set(config)
    probabilities, mirrored = predict_dataset(predictor, data, flip)
    folder = predictor.metadata["run"].get("run_folder")
    if not is_in(now.tensorboard_dir, folder):
        folder = new_run_folder(now.tensorboard_dir, config.test_path, now.checkpoint_dir)  # of a graph from elsewhere
    make_writable("tensorboard_dir", folder)
    heading = escape_control_characters(f"{predictor.source} on {config.test_path}")
    text = write_report(folder, heading, data.paths, data.labels, probabilities, predictor.classes, mirrored)
    trained = settings_of_run(predictor.metadata["run"].get("checkpoint"), now.checkpoint_dir)
    write_page(folder, text, settings_of_graph(predictor.metadata, trained), predictor, data, probabilities)
    print(f"{text}\nwritten to {folder}: report.html, evaluation.txt, predictions.csv and pictures")


@verb(
    [
        option("images", help="image files, or folders of images", nargs="+", metavar="IMAGE_OR_FOLDER"),
        option("--top", help="classes to show per image (default 5)", type=int, metavar="COUNT"),
        option("--json", help="a line of JSON for each image", action="store_true"),
        WEIGHTS,
        TRUST_GRAPH,
    ],
    settings=GRAPH_SETTINGS,
    usage="IMAGE_OR_FOLDER ... [--OPTION VALUE ...]",
)
def predict(images, weights=None, top=5, json=False, trust_graph=False, **given):
    """Classify images with a frozen graph. Needs its .pb and the JSON beside it, and nothing else."""
    end_with_the_reader()
    if top < 1:
        raise InputError(f"--top: found {top}, expected 1 or more")
    now = settings_for(GRAPH_SETTINGS, given)
    from convert.freeze import graph_path
    from utils.image_folders import images_at
    from utils.predictor import load, show

    predictor = load(graph_path(now) if weights is None else weights, trust_graph, now.device)
    broken = show(predictor, images_at(images), top, json)
    return 1 if broken else 0


@verb(
    [
        option("images", help="image files, or folders of images", nargs="+", metavar="IMAGE_OR_FOLDER"),
        option("--output", help="where to write the picture (default explanation.png)", metavar="FILE.png"),
        WEIGHTS,
        TRUST_GRAPH,
    ],
    settings=GRAPH_SETTINGS,
    usage="IMAGE_OR_FOLDER ... [--OPTION VALUE ...]",
)
def explain(images, output="explanation.png", weights=None, trust_graph=False, **given):
    """Draw what in an image speaks for each of its three best classes (Grad-CAM)."""
    now = settings_for(GRAPH_SETTINGS, given)
    from convert.freeze import graph_path
    from utils.explain import MOST_EXPLAINED, Explainer, draw_explanations
    from utils.image_folders import images_at
    from utils.predictor import load

    paths = images_at(images)
    if len(paths) > MOST_EXPLAINED:
        raise InputError(f"explain: found {len(paths)} images, expected at most {MOST_EXPLAINED} for one picture")
    predictor = load(graph_path(now) if weights is None else weights, trust_graph, now.device)
    draw_explanations(output, Explainer(predictor), paths)
    say(f"written to {output}")


@verb(
    [option("--output", help="where to write the picture (default samples.png)", metavar="FILE.png")],
    settings=[*SETS, "classes", "model_arch", "img_size"],
)
def check(output="samples.png", **given):
    """Look at every image of the training, validation and test sets, and list what is odd about them."""
    config = settings_for((*SETS, "classes", "model_arch", "img_size"), given)
    from utils.check_data import check_data
    from utils.image_folders import find_images, skipped_lines

    sets, notes, faults = {}, [], []
    for name in SETS:
        # Those of src/config.py need not be there.
        if name == "train_path" or given.get(name) or os.path.isdir(getattr(config, name) or ""):
            try:
                found = find_images(name, getattr(config, name), config.classes)
                sets[name] = found.paths, found.labels
                notes += found.notes + skipped_lines(getattr(config, name), found.skipped)
            except InputError as error:
                if name == "train_path":
                    raise
                faults.append(str(error))
    lines, problems = check_data(sets, config.classes, config.img_size, output)
    lines += [escape_control_characters(line) for line in [f"note: {note}" for note in notes] + faults]
    say("\n".join(lines))
    return 1 if problems or faults else 0


@verb(
    [
        option("--last", help="the newest checkpoint instead of the best", action="store_true"),
        option("--run", help="an earlier run, by the name that python run.py runs lists", metavar="NAME"),
    ],
    EXPORT_SETTINGS,
)
def export(last=False, run=None, **given):
    """Export the best checkpoint of a run, without training, to where evaluate, predict and convert take it from."""
    settings_for(EXPORT_SETTINGS, given)
    from convert.freeze import export_checkpoint

    graph, origin = export_checkpoint(last, run, **given)
    validated = (
        "stopped before it was validated"
        if origin["val_acc"] is None
        else f"validation accuracy {origin['val_acc']:.4f}"
    )
    say(f"graph            {graph}")
    say(f"from checkpoint  {origin['checkpoint']}, {validated}")


@verb(settings=EXPORT_SETTINGS)
def runs(**given):
    """List the runs that left checkpoints: model, data, epochs, best validation accuracy, exported graph, megabytes."""
    end_with_the_reader()
    archs = [given["model_arch"]] if "model_arch" in given else MODEL_ARCHS
    now = [settings_for(EXPORT_SETTINGS, dict(given, model_arch=name)) for name in archs]
    from utils.runs import table

    print(table(now))


@verb(
    [option("--total_class", help="number of classes (default: as in train_path, or 10)", type=int, metavar="COUNT")],
    settings=SUMMARY_SETTINGS,
)
def summary(total_class=None, **given):
    """List the layers of a network: output shape, parameters, and multiply-adds for one image."""
    end_with_the_reader()
    if total_class is not None and not 2 <= total_class <= MOST_CLASSES:
        limits = "2 or more" if total_class < 2 else f"2 to {MOST_CLASSES}"
        raise InputError(f"--total_class: found {shortened(total_class)}, expected {limits}")
    names = (*SUMMARY_SETTINGS, "total_class", "numchannels", "batch_norm_momentum", "seed")
    total_class = total_class or settings_for(names, given).total_class or 10
    classes = [str(number) for number in range(total_class)]
    config = settings_for(names, dict(given, classes=classes, total_class=total_class))
    from utils.summary import summary as table

    print(table(config))


@verb(
    [
        option("dataset", help="digits or cifar10", choices=["digits", "cifar10"], metavar="DATASET"),
        option("--archive", help="cifar10: a copy of the archive, instead of downloading it", metavar="FILE"),
    ],
    usage="DATASET [--archive FILE]",
)
def prepare(dataset, **options):
    """Make a data set: digits (no download) or cifar10 (downloads 170 MB)."""
    if dataset == "digits" and options:
        raise InputError(f"--archive: found {options['archive']}, expected none for digits, which need no archive")
    from utils import prepare_data

    prepare_data.prepare(dataset, **options)


if __name__ == "__main__":
    in_utf8()
    end_process(main())
