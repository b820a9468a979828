"""What the command lines share: settings as options, one line for what is wrong, an exit code."""

import argparse
import os
import shlex
import shutil
import signal
import sys

from src import config
from src.errors import InputError, did_you_mean, print_error
from src.settings import RULES


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def __init__(self, **options):
        super().__init__(
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message):
        raise InputError(f"{message}; {self.prog} --help lists the options")

    def parse(self, words):
        """{option: value} of those that are given. Raises InputError if one is unknown or wrong."""
        given, unknown = self.parse_known_args(words)
        if unknown:
            name = unknown[0].split("=")[0]
            options = [option[2:] for option in self._option_string_actions if option.startswith("--")]
            hint = did_you_mean(name.lstrip("-"), options, "--") or f"; {self.prog} --help lists the options"
            raise InputError(f"unknown argument {name}{hint}")
        return vars(given)

    def add_settings(self, names, of_the_run=()):
        """Options for settings of src/config.py; help says that those `of_the_run` come from the run of the graph."""
        if not names:
            return
        group = self.add_argument_group("settings of src/config.py, for this run, with [what they are now]")
        for name in names:
            rule = RULES[name]
            now = "that of the run" if name in of_the_run else shown(name)
            about = f"{rule.help}; {rule.expected} [{now}]".replace("%", "%%")
            group.add_argument(f"--{name}", type=rule.read, metavar="VALUE", help=about)


def shown(name):
    """What a setting is now, in short."""
    try:
        value = getattr(config, name, None)
    except InputError:  # which is said when it is used
        value = vars(config).get(name)
    if name in ("classes", "total_class") and not value:
        return "as in train_path"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
        print_error(f"{error.filename or 'input or output'}: {error.strerror or error}")
        return 2
    except ModuleNotFoundError as error:
        print_error(
            f"{error} in {sys.executable}; activate an environment with requirements.txt installed, such as "
            ". .venv/3.11/bin/activate"
        )
        return 2
    except KeyboardInterrupt:
        return 130


def program(name):
    """How to call a program of this environment in a shell: its name alone if that is found on PATH."""
    path = os.path.join(os.path.dirname(sys.executable), name)
    return name if shutil.which(name) == path or not os.path.exists(path) else shlex.quote(os.path.relpath(path))


def end_with_the_reader():
    """Let the process end quietly when nobody reads its output any more, as behind `| head`."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
