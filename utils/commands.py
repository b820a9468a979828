"""What the command lines share: settings as options, one line for what is wrong, an exit code."""
import argparse
import signal
import sys

from src import config
from src.errors import InputError
from src.settings import RULES, comments


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def __init__(self, **options):
        super(Parser, self).__init__(allow_abbrev=False, argument_default=argparse.SUPPRESS,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message):
        raise InputError("%s; %s --help shows what there is" % (message, self.prog))

    def add_settings(self, names, of_the_run=()):
        """Options for settings of src/config.py; help says that those `of_the_run` come from the run of the graph."""
        about = comments() if names else {}
        group = self.add_argument_group("settings of src/config.py, for this run, with [what they are now]")
        for name in names:
            group.add_argument("--" + name, type=RULES[name].read, metavar="VALUE",
                               help=("%s; %s [%s]" % (about.get(name, ""), RULES[name].expected,
                                                      "that of the run" if name in of_the_run else
                                                      short(getattr(config, name, "")))).replace("%", "%%"))


def short(value):
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def exit_code(command):
    """Run a command: its own exit code (None: 0), 2 after bad input, with one line that says what, 130 after Ctrl-C.

    SIGTERM ends in SystemExit with code 143.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return command() or 0
    except (InputError, FloatingPointError) as error:
        print_error(error)
        return 2
    except OSError as error:  # full disk, no permission
        print_error("%s: %s" % (error.filename or "input or output", error.strerror or error))
        return 2
    except ModuleNotFoundError as error:
        print_error("%s in %s; activate an environment with requirements.txt installed, such as . .venv/3.11/bin/"
                    "activate" % (error, sys.executable))
        return 2
    except KeyboardInterrupt:
        return 130


def print_error(error):
    print(("error: %s" % error).replace("\n", "\\n"), file=sys.stderr)
