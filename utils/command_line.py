"""What the command lines share: settings as options, one line for what is wrong, an exit code."""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import traceback

from src import config
from src.console import drop_output, print_error, standard_streams
from src.errors import ExitCode, InputError, did_you_mean, first_line, is_out_of_memory, reason
from src.settings import SETTINGS


def option(*names, **given):
    """An option, or an argument, as argparse takes it."""
    return names, given


def at_least(limit, *names, **given):
    """An option that takes a whole number, `limit` or more."""

    def parse(text):
        number = int(text)  # argparse says it if this raises ValueError
        if number < limit:
            raise InputError(names[0], number, f"{limit} or more")
        return number

    parse.__name__ = "int"  # as argparse calls it
    return option(*names, type=parse, **given)


TRUST_GRAPH = option(
    "--trust_graph", help="run a graph with operations that could write files, or of any size", action="store_true"
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def __init__(self, **options):
        super().__init__(
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )
        self.hint = f"{self.prog} --help lists the options"

    def error(self, message):
        raise InputError(message, hint=self.hint)

    def parse(self, words):
        """{option: value} of those that are given. Raises InputError if one is unknown or wrong."""
        given, unknown = self.parse_known_args(self._joined(words))
        if unknown:
            name = unknown[0].split("=")[0]
            options = [option[2:] for option in self._option_string_actions if option.startswith("--")]
            hint = did_you_mean(name.lstrip("-"), options, "--") or self.hint
            raise InputError(f"unknown argument {name}", hint=hint)
        return vars(given)

    def _joined(self, words):
        """The words, with `--classes -1,1` as `--classes=-1,1`: argparse takes -1,1 for an option."""
        result = []
        for word in words:
            option = self._option_string_actions.get(result[-1]) if result else None
            takes_value = option is not None and option.nargs != 0
            if takes_value and word[:1] == "-" and word.split("=")[0] not in self._option_string_actions:
                if word.startswith("--"):  # rather an option with a typing error
                    hint = f"one that begins with a dash is given as {result[-1]}={word}; {self.hint}"
                    raise InputError(f"argument {result[-1]}", found=word, expected="a value", hint=hint)
                result[-1] += f"={word}"
            else:
                result.append(word)
        return result

    def add_settings(self, names, of_the_run=()):
        """Options for settings of src/config.py; help says that those `of_the_run` come from the run of the graph."""
        if not names:
            return
        group = self.add_argument_group("settings (override src/config.py; [current value])")
        for name in names:
            setting = SETTINGS[name]
            now = "that of the run" if name in of_the_run else shown(name)
            about = f"{setting.help}; {setting.expected} [{now}]".replace("%", "%%")
            group.add_argument(f"--{name}", type=setting.parse, metavar="VALUE", help=about)


def to_argv(given):
    """The words of a command line that give these options: {name: value}."""
    values = {name: json.dumps(value) if isinstance(value, list) else value for name, value in given.items()}
    return [f"--{name}={value}" for name, value in values.items()]


def shown(name):
    """What a setting is now, in short."""
    try:
        value = getattr(config, name, None)
    except InputError:  # which is said when it is used
        value = vars(config).get(name)
    value = value.tolist() if hasattr(value, "tolist") else value
    if name in ("classes", "total_class") and not value:
        return "as in train_path"
    try:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    except ValueError:  # a number of more digits than Python prints
        return "..."
    return text if len(text) <= 60 else f"{text[:57]}..."


def exit_code(command):
    """Run a command; returns its own exit code (None: OK), BAD_INPUT, after one line that says what, or INTERRUPTED.

    SIGTERM ends in SystemExit with TERMINATED.
    """
    for name in [name for name in os.environ if name.startswith("TQDM_")]:
        del os.environ[name]  # tqdm reads them when it is imported, and nonsense in them would end the program
    with standard_streams():
        previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.TERMINATED))
        try:
            return run_command(command)
        finally:
            signal.signal(signal.SIGTERM, previous)


def run_command(command):
    try:
        code = command() or ExitCode.OK
        sys.stdout.flush()
        return code
    except (InputError, FloatingPointError) as error:
        print_error(error)
        return ExitCode.BAD_INPUT
    except OSError as error:  # full disk, no permission
        print_error(f"{error.filename or culprit(error)}: {reason(error)}")
        return ExitCode.BAD_INPUT
    except UnicodeEncodeError as error:
        found = f"a character that the encoding {error.encoding} has not ({ascii(error.object)})"
        print_error(InputError("locale", found, expected="one with UTF-8, such as LC_ALL=C.UTF-8"))
        return ExitCode.BAD_INPUT
    except ModuleNotFoundError as error:
        print_error(
            f"{error} in {sys.executable}; activate an environment with requirements.txt installed, such as "
            ". .venv/3.11/bin/activate"
        )
        return ExitCode.BAD_INPUT
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print_error(f"memory ran out: {first_line(error)}; expected smaller images, a smaller graph, or more memory")
        return ExitCode.BAD_INPUT
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def culprit(error):
    """What could not be read or written, as far as it is known, where the system does not name a file."""
    for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)):
        try:
            stream.flush()
        except OSError:
            drop_output()
            return name
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(here + os.sep)]
    return f"a file that the system does not name ({os.path.relpath(frames[-1].filename, here)}, {frames[-1].name})"


def program(name):
    """How to call a program of this environment in a shell: its name alone if that is found on PATH."""
    path = os.path.join(os.path.dirname(sys.executable), name)
    if shutil.which(name) == path or not os.path.exists(path):
        return name
    with contextlib.suppress(OSError):  # the folder we are in may be gone
        path = os.path.relpath(path)
    return shlex.quote(path)


def end_process(code):
    """End the process; Ctrl-C does not print a traceback any more while it is ending."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
