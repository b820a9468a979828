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


def main(argv=None):
    """Run the command line; returns the exit code: 0 done, 2 bad input, 130 stopped by Ctrl-C.

    SIGTERM ends in SystemExit with code 143.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    words = sys.argv[1:] if argv is None else argv
    verb = words[0] if words and not words[0].startswith("-") else None
    try:
        if verb not in VERBS:
            raise InputError("verb %s: there is none of that name, only export and prepare" % verb)
        options = vars(parser(verb).parse_args(words[1:] if verb else words))
        VERBS[verb](**options)
        return 0
    except (InputError, FloatingPointError) as error:
        print(("error: %s" % error).replace("\n", "\\n"), file=sys.stderr)
        return 2
    except OSError as error:  # full disk, no permission
        print("error: %s: %s" % (error.filename or "input or output", error.strerror or error), file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print("error: %s in %s; activate an environment with requirements.txt installed, such as . .venv/3.11/bin/"
              "activate" % (error, sys.executable), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message):
        raise InputError("%s; %s --help shows what there is" % (message, self.prog))


def parser(verb):
    """The parser of what may stand behind the verb."""
    result = Parser(prog="python run.py" + (" " + verb if verb else ""), usage="%(prog)s [--SETTING VALUE ...]",
                    description=VERBS[verb].__doc__ if verb else __doc__, allow_abbrev=False,
                    argument_default=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter)
    if verb == "prepare":
        result.usage = "%(prog)s digits | cifar10 [--archive FILE]"
        result.add_argument("dataset", choices=["digits", "cifar10"])
        result.add_argument("--archive", metavar="FILE", help="cifar10: a copy of the archive, not to download it")
        return result
    # Weights go with the settings they were learned with, so that export is told only where they are.
    names = ["model_arch", "checkpoint_dir", "weight_dir"] if verb == "export" else RULES
    about = comments()
    group = result.add_argument_group("settings of src/config.py, for this run, with [what they are now]")
    for name in names:
        group.add_argument("--" + name, type=RULES[name].read, metavar="VALUE",
                           help=("%s; %s [%s]" % (about.get(name, ""), RULES[name].expected,
                                                  short(getattr(config, name, "")))).replace("%", "%%"))
    return result


def short(value):
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
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
    """Export the newest checkpoint, without training."""
    from convert.freeze import export_newest
    print("graph            %s" % export_newest(**given))


def prepare(dataset, **options):
    """Make a data set: digits (no download) or cifar10 (downloads 170 MB)."""
    if dataset == "digits" and options:
        raise InputError("--archive: found %s, expected none for digits, which need no archive" % options["archive"])
    from utils import prepare_data
    prepare_data.prepare(dataset, **options)


VERBS = {None: train, "export": export, "prepare": prepare}


if __name__ == "__main__":
    sys.exit(main())
