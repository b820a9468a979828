#!/usr/bin/env python
"""Train an image classifier and export it as a frozen graph.

  python run.py                      train model_arch on the images under train_path, then export it
  python run.py export               export the newest checkpoint, without training
  python run.py prepare digits       make a data set: data/digitspng, 1,797 handwritten digits, no download
  python run.py prepare cifar10      make a data set: data/cifar10png, 60,000 photos, downloads 170 MB

Each setting of src/config.py can be given for one run, for example
  python run.py --train_path data/digitspng/train --test_path data/digitspng/test --num_epoch 30
"""
import argparse
import os
import signal
import sys

from src import config
from src.errors import InputError
from src.settings import RULES, comments


class Parser(argparse.ArgumentParser):
    """Answers a wrong command line in one line."""

    def error(self, message):
        raise InputError("%s; python run.py --help shows what there is" % message)


def main(argv=None):
    """Run the command line; returns the exit code: 0 done, 2 bad input, 130 stopped by Ctrl-C, 143 by SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        options = vars(parser().parse_args(argv))
        VERBS[options.pop("verb")](**options)
        return 0
    except InputError as error:
        print("error: %s" % error, file=sys.stderr)
        return 2
    except OSError as error:  # full disk, no permission
        print("error: %s: %s" % (error.filename or "cannot read or write", error.strerror or error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parser():
    # Settings may stand before or after the verb: SUPPRESS keeps one parser from resetting what the other found.
    options = dict(allow_abbrev=False, argument_default=argparse.SUPPRESS,
                   formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Parser(add_help=False, **options)
    group = shared.add_argument_group("settings of src/config.py, for this run, with [what they are now]")
    about = comments()
    for name, rule in RULES.items():
        group.add_argument("--" + name, type=rule.read, metavar="VALUE",
                           help="%s; %s [%s]" % (about[name], rule.expected, short(getattr(config, name))))

    top = Parser(description=__doc__, parents=[shared], usage="run.py [VERB] [--SETTING VALUE ...]", **options)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", help="without one: train, then export")
    verbs.add_parser("export", parents=[shared], help="export the newest checkpoint", **options)
    prepare_parser = verbs.add_parser("prepare", help="make a data set", **options)
    prepare_parser.add_argument("dataset", choices=["digits", "cifar10"])
    prepare_parser.add_argument("--archive", metavar="FILE", help="cifar10: a copy of the archive, not to download it")
    return top


def short(value):
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def train(**given):
    """Train for config.num_epoch epochs, export, and say where everything is."""
    from trainer import Trainer
    trainer = Trainer(**given)
    try:
        trainer.optimize()
        graph = trainer.export()
    except (KeyboardInterrupt, SystemExit):
        if trainer.saved_step:
            print("stopped; checkpoint of step %d saved in %s; python run.py export makes a graph of it"
                  % (trainer.saved_step, trainer.config.checkpoint_dir))
        raise
    finally:
        trainer.close()
    print("graph            %s" % graph)
    print("checkpoints      %s" % trainer.config.checkpoint_dir)
    print("TensorBoard logs %s" % trainer.run_folder)
    tensorboard = os.path.join(os.path.dirname(sys.executable), "tensorboard")
    print("to see the curves: %s --logdir %s" % (
        os.path.relpath(tensorboard) if os.path.exists(tensorboard) else "tensorboard",
        os.path.dirname(trainer.config.tensorboard_dir) or "."))


def export(**given):
    """Freeze the newest checkpoint."""
    from convert.freeze import export_newest
    print("graph            %s" % export_newest(**given))


def prepare(dataset, **options):
    """Make one of the data sets that the project knows."""
    from utils import prepare_data
    prepare_data.prepare(dataset, **options)


VERBS = {None: train, "export": export, "prepare": prepare}


if __name__ == "__main__":
    sys.exit(main())
