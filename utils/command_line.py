"""Shared by the command lines: settings as options, errors as one line, exit codes."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import traceback

from src import config
from src.console import drop_output, print_error, standard_streams
from src.errors import ExitCode, InputError, did_you_mean, first_line, is_out_of_memory, reason
from src.settings import GROUPS, SETTINGS
from src.system import ACTIVATE, PROGRAM_FILE, quote


def option(*names, **options):
    """The arguments of argparse's add_argument."""
    return names, options


def at_least(limit, *names, **options):
    """An option whose value is an integer, `limit` or more."""

    def parse(text):
        number = int(text)  # argparse reports a ValueError
        if number < limit:
            raise InputError(names[0], number, f"{limit} or more")
        return number

    parse.__name__ = "int"  # for argparse's messages
    return option(*names, type=parse, **options)


def fraction(*names, **options):
    """An option whose value is a number between 0 and 1."""

    def parse(text):
        number = float(text)
        if not 0 < number < 1:
            raise InputError(names[0], text, "a fraction above 0 and below 1")
        return number

    parse.__name__ = "float"
    return option(*names, type=parse, **options)


TRUST_GRAPH = option(
    "--trust_graph", help="run a graph with operations that could write files, or of any size", action="store_true"
)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError."""

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
        """{option: value} of the options given. Raises InputError if one is unknown or invalid."""
        given, unknown = self.parse_known_args(self._joined(words))
        if unknown:
            name = unknown[0].split("=")[0]
            options = [option[2:] for option in self._option_string_actions if option.startswith("--")]
            hint = did_you_mean(name.lstrip("-"), options, "--") or self.hint
            raise InputError(f"unknown argument {name}", hint=hint)
        return vars(given)

    def _joined(self, words):
        """The words, with `--classes -1,1` as `--classes=-1,1`: argparse would take -1,1 as an option."""
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
        """Add options for settings, grouped by GROUPS; the default of those `of_the_run` is that of the graph's run."""
        if not names:
            return
        title, group = None, None
        for name, setting in SETTINGS.items():
            title = GROUPS.get(name, title)
            if name not in names:
                continue
            if group is None or group.title != f"{title} settings":
                group = self.add_argument_group(f"{title} settings")
            default = "that of the run" if name in of_the_run else current_value(name)
            about = setting.help if setting.choices else f"{setting.help}; {setting.expected}"
            metavar = f"{{{','.join(setting.choices)}}}" if setting.choices else "VALUE"
            about = f"{about} (default: {default})".replace("%", "%%")
            group.add_argument(f"--{name}", type=setting.parse, metavar=metavar, help=about)


def to_argv(options):
    """Command-line words for options, {name: value}."""
    values = {name: json.dumps(value) if isinstance(value, list) else value for name, value in options.items()}
    return [f"--{name}={value}" for name, value in values.items()]


def current_value(name):
    """The value of a setting, abbreviated, for --help."""
    try:
        value = getattr(config, name, None)
    except InputError:  # which is reported when the setting is used
        value = vars(config).get(name)
    value = value.tolist() if hasattr(value, "tolist") else value
    if name in ("classes", "total_class") and not value:
        return "as in train_path"
    try:
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    except ValueError:  # a number with more digits than Python converts
        return "..."
    return text if len(text) <= 60 else f"{text[:57]}..."


def exit_code(command):
    """Run a command; returns its exit code (None: OK), or prints one line and returns BAD_INPUT, or INTERRUPTED.

    SIGTERM raises SystemExit(TERMINATED).
    """
    for name in [name for name in os.environ if name.startswith("TQDM_")]:
        del os.environ[name]  # an invalid value crashes tqdm when it is imported
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
        found = f"{error.encoding}, which cannot encode {ascii(error.object)}"
        print_error(InputError("locale", found, "one with UTF-8, such as LC_ALL=C.UTF-8"))
        return ExitCode.BAD_INPUT
    except ModuleNotFoundError as error:
        hint = f"activate an environment with requirements.txt installed, such as {ACTIVATE}"
        print_error(InputError(f"{error} in {sys.executable}", hint=hint))
        return ExitCode.BAD_INPUT
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        found = f"too little ({first_line(error)})"
        print_error(InputError("memory", found, "more of it, smaller images, or a smaller graph"))
        return ExitCode.BAD_INPUT
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def culprit(error):
    """The best guess at what could not be read or written, for an OSError without a file name."""
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
    """The shell command for a program of this environment: its name alone if PATH finds it."""
    path = os.path.join(os.path.dirname(sys.executable), PROGRAM_FILE.format(name))
    if os.path.normcase(shutil.which(name) or "") == os.path.normcase(path) or not os.path.exists(path):
        return name
    with contextlib.suppress(OSError, ValueError):  # the current folder may be deleted, or on another drive
        path = os.path.relpath(path)
    return quote(path)


def end_process(code):
    """Exit; Ctrl-C during the exit prints no traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
