"""What the command lines share: settings as options, one line for what is wrong, an exit code."""

import argparse
import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import sys

from src import config
from src.errors import InputError, did_you_mean, drop_output, first_line, is_out_of_memory, print_error, say
from src.settings import FOLDERS, RULES


def option(*names, **given):
    """An option, or an argument, as argparse takes it."""
    return names, given


TRUST_GRAPH = option("--trust_graph", help="run a graph with operations that could write files", action="store_true")


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
        group = self.add_argument_group("settings of src/config.py, for this command, with [what they are now]")
        for name in names:
            rule = RULES[name]
            now = "that of the run" if name in of_the_run else shown(name)
            about = f"{rule.help}; {rule.expected} [{now}]".replace("%", "%%")
            group.add_argument(f"--{name}", type=rule.read, metavar="VALUE", help=about)


def words_of(given):
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
    """Run a command: its own exit code (None: 0), 2 after bad input, with one line that says what, 130 after Ctrl-C.

    SIGTERM ends in SystemExit with code 143.
    """
    with standard_streams():
        previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            return run_command(command)
        finally:
            signal.signal(signal.SIGTERM, previous)


def run_command(command):
    try:
        code = command() or 0
        sys.stdout.flush()
        return code
    except (InputError, FloatingPointError) as error:
        print_error(error)
        return 2
    except OSError as error:  # full disk, no permission
        if error.filename is None:
            drop_output()  # it may be what cannot be written to
        print_error(f"{error.filename or 'input or output'}: {error.strerror or error}")
        return 2
    except ModuleNotFoundError as error:
        print_error(
            f"{error} in {sys.executable}; activate an environment with requirements.txt installed, such as "
            ". .venv/3.11/bin/activate"
        )
        return 2
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print_error(f"memory ran out: {first_line(error)}; expected smaller images, a smaller graph, or more memory")
        return 2
    except KeyboardInterrupt:
        return 130


@contextlib.contextmanager
def standard_streams():
    """Output and errors that take every character.

    If one is closed, it becomes an open file, or its number would be given to the next file that is opened. Python's
    errors go through a number of their own, so that C libraries, which write to number 2, can be muted.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = [tolerant(stream, number) for number, stream in enumerate(before, 1)]
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before


def tolerant(stream, number):
    """The stream; if it is that of the process itself, as one that writes what it cannot encode as \\x and digits."""
    if stream is not None and type(stream) is not io.TextIOWrapper:
        return stream  # of a notebook or a test
    encoding, by_line = (stream.encoding, stream.line_buffering) if stream else ("utf-8", True)
    copy = os.fdopen(os.dup(number), "wb")
    return io.TextIOWrapper(copy, encoding, "backslashreplace", line_buffering=by_line or number == 2)


def print_stopped(trainer, given):
    """What is left of a training that was stopped, how to go on with it, and how to export it."""
    if not trainer.last_checkpoint:
        say("stopped; nothing was learned yet, so nothing is saved")
        return

    def options(*names):
        return "".join(f" --{name} {shlex.quote(str(given[name]))}" for name in names if name in given)

    say(f"stopped; saved {trainer.last_checkpoint}")
    name, folders = os.path.basename(trainer.checkpoints.folder), ("checkpoint_dir", "weight_dir")
    launch = f"launch --workers {trainer.cluster.size} " if trainer.cluster.launcher else ""
    say(f"to go on:     {program('python')} run.py {launch}--resume --run {name}{options('model_arch', *FOLDERS)}")
    say(f"to export it: {program('python')} run.py export --last --run {name}{options('model_arch', *folders)}")


def program(name):
    """How to call a program of this environment in a shell: its name alone if that is found on PATH."""
    path = os.path.join(os.path.dirname(sys.executable), name)
    if shutil.which(name) == path or not os.path.exists(path):
        return name
    with contextlib.suppress(OSError):  # the folder we are in may be gone
        path = os.path.relpath(path)
    return shlex.quote(path)


def end_with_the_reader():
    """Let the process end quietly when nobody reads its output any more, as behind `| head`."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def end_process(code):
    """End the process; Ctrl-C does not print a traceback any more while it is ending."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)
