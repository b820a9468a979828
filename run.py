#!/usr/bin/env python
"""Train an image classifier and export it as a frozen graph.

  python run.py                      train model_arch on the images under train_path, then export it
  python run.py evaluate             how good the exported graph is on the test images, with pictures
  python run.py predict IMAGE ...    what the exported graph sees in images, or in all those of a folder
  python run.py export               export the best checkpoint, without training; --last: the newest
  python run.py summary              the layers of model_arch, their parameters and multiply-adds
  python run.py prepare digits       make a data set: data/digitspng, 1,797 handwritten digits, no download
  python run.py prepare cifar10      make a data set: data/cifar10png, 60,000 photos, downloads 170 MB

Each of them explains its options: python run.py evaluate --help

Each setting of src/config.py can be given for one run, for example
  python run.py --train_path data/digitspng/train --test_path data/digitspng/test --num_epoch 30
"""
import os
import signal
import sys

from src.errors import InputError
from src.settings import RULES, settings
from utils.commands import Parser, exit_code


def main(argv=None):
    """Run the command line; returns the exit code: 0 done, 1 done but for broken images, 2 bad input, 130 Ctrl-C."""
    return exit_code(lambda: run(sys.argv[1:] if argv is None else argv))


def run(words):
    verb = words[0] if words and not words[0].startswith("-") else None
    if verb not in VERBS:
        raise InputError("command %s: there is none of that name, only %s" % (verb, ", ".join(filter(None, VERBS))))
    if verb in ("evaluate", "predict", "summary"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when nobody reads on, as behind `| head`
    options = vars(parser(verb).parse_args(words[1:] if verb else words))
    return VERBS[verb](**options)


def parser(verb):
    """The parser of what may stand behind the verb."""
    usage = {"prepare": "digits | cifar10 [--archive FILE]", "predict": "IMAGE_OR_FOLDER ... [--OPTION VALUE ...]",
             None: "[--SETTING VALUE ...]"}.get(verb, "[--OPTION VALUE ...]")
    result = Parser(prog="python run.py" + (" " + verb if verb else ""), usage="%(prog)s " + usage,
                    description=VERBS[verb].__doc__ if verb else __doc__)
    if verb == "prepare":
        result.add_argument("dataset", choices=["digits", "cifar10"])
        result.add_argument("--archive", metavar="FILE", help="cifar10: a copy of the archive, not to download it")
    if verb == "predict":
        result.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="image files, or folders with some")
        result.add_argument("--top", type=int, metavar="COUNT", help="so many classes for each image, 5 if not given")
        result.add_argument("--json", action="store_true", help="a line of JSON for each image")
    if verb in ("evaluate", "predict"):
        result.add_argument("--weights", metavar="FILE.pb",
                            help="a frozen graph with its JSON beside it, if not weights/<model_arch>/<model_arch>.pb")
    if verb == "evaluate":
        result.add_argument("--checkpoint", metavar="PREFIX",
                            help="a checkpoint instead, such as checkpoints/lenet5/lenet5-1312")
    if verb == "export":
        result.add_argument("--last", action="store_true", help="the newest checkpoint, not the best")
    if verb == "summary":
        result.add_argument("--total_class", type=int, metavar="COUNT",
                            help="classes; those in train_path, or 10, if not given")
    result.add_settings(SETTINGS.get(verb, RULES), of_the_run=["test_path"] if verb == "evaluate" else [])
    return result


def train(**given):
    """Train for config.num_epoch epochs, export, and say where everything is."""
    from trainer import Trainer
    trainer = Trainer(**given)
    try:
        trainer.optimize()
        graph = trainer.export()
    except (KeyboardInterrupt, SystemExit):
        print("stopped; " + ("checkpoint of step %d saved in %s; a graph of it: python run.py export --last%s" % (
            trainer.saved_step, trainer.config.checkpoint_dir, "".join(" --%s %s" % (name, given[name]) for name in
                                                                       SETTINGS["export"] if name in given))
                             if trainer.saved_step else "nothing was learned yet, so nothing is saved"))
        raise
    finally:
        trainer.close()
    print("graph            %s" % graph)
    print("checkpoints      %s" % trainer.config.checkpoint_dir)
    print("TensorBoard logs %s" % trainer.run_folder)
    tensorboard = os.path.join(os.path.dirname(sys.executable), "tensorboard")
    print("to see the curves: %s --logdir %s" % (
        os.path.relpath(tensorboard) if os.path.exists(tensorboard) else "tensorboard",
        "graphs" if trainer.config.tensorboard_dir == "graphs/" + trainer.config.model_arch
        else trainer.config.tensorboard_dir))


def evaluate(weights=None, checkpoint=None, **given):
    """How good the exported graph is on the test images of the run that made it."""
    from convert.freeze import contents, description, frozen_graph, graph_path
    from dataset import read_test_set
    from utils.board import new_run_folder
    from utils.files import make_writable
    from utils.predictor import Predictor, image_settings, load, printable
    from utils.report import ask_all, write_report
    if weights is not None and checkpoint is not None:
        raise InputError("--checkpoint: found %s beside --weights, expected one of them" % checkpoint)
    now = settings(**given)
    if checkpoint is not None:
        learned, values, origin = contents(checkpoint)
        predictor = Predictor(frozen_graph(learned, values), description(learned, origin), checkpoint)
    else:
        predictor = load(graph_path(now) if weights is None else weights)
    config = image_settings(predictor.description, given, now)
    data = read_test_set(config)
    folder = predictor.description["run"].get("run_folder")
    if folder is None or "tensorboard_dir" in given:
        folder = new_run_folder(now.tensorboard_dir)
    make_writable("tensorboard_dir", folder)
    heading = printable("%s on %s" % (predictor.source, config.test_path))
    print(write_report(folder, heading, data.paths, data.labels, ask_all(predictor, data), predictor.classes))
    print("written to %s: evaluation.txt, predictions.csv, confusion.png, mistakes.png" % folder)


def predict(images, weights=None, top=5, json=False, **given):
    """What a frozen graph sees in images. Needs its .pb and the JSON beside it, and nothing else."""
    from convert.freeze import graph_path
    from utils.predictor import images_in, load, show
    if top < 1:
        raise InputError("--top: found %d, expected 1 or more" % top)
    predictor = load(graph_path(settings(**given)) if weights is None else weights)
    broken = show(predictor, [file for path in images for file in images_in(path)], top, json)
    return 1 if broken else 0


def export(last=False, **given):
    """Export the checkpoint of the newest run that was best in validation, without training."""
    from convert.freeze import export_checkpoint
    graph, origin = export_checkpoint(last, **given)
    print("graph            %s" % graph)
    print("from checkpoint  %s, %s" % (origin["checkpoint"], "not validated" if origin["val_acc"] is None else
                                       "validation accuracy %.4f" % origin["val_acc"]))


def summary(total_class=None, **given):
    """The layers of a network: output shape, parameters, and multiply-adds for one image."""
    from utils.summary import summary as table
    if total_class is not None and total_class < 1:
        raise InputError("--total_class: found %d, expected 1 or more" % total_class)
    total_class = total_class or settings(**given).total_class or 10
    print(table(settings(**dict(given, classes=[str(number) for number in range(total_class)]))))


def prepare(dataset, **options):
    """Make a data set: digits (no download) or cifar10 (downloads 170 MB)."""
    if dataset == "digits" and options:
        raise InputError("--archive: found %s, expected none for digits, which need no archive" % options["archive"])
    from utils import prepare_data
    prepare_data.prepare(dataset, **options)


VERBS = {None: train, "evaluate": evaluate, "predict": predict, "export": export, "summary": summary,
         "prepare": prepare}
SETTINGS = {  # that a verb takes; training takes all. The others belong to the weights, which bring theirs.
    "evaluate": ["model_arch", "weight_dir", "test_path", "tensorboard_dir"],
    "predict": ["model_arch", "weight_dir"],
    "export": ["model_arch", "checkpoint_dir", "weight_dir"],
    "summary": ["model_arch", "img_size", "width", "train_path", "classes"],
    "prepare": []}


if __name__ == "__main__":
    sys.exit(main())
