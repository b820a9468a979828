"""What the command lines share: settings as options, one line for what is wrong, an exit code."""

import argparse
import contextlib
import io
import json
import locale
import os
import shlex
import shutil
import signal
import subprocess
import sys
import traceback

from src import config
from src.errors import InputError, did_you_mean, drop_output, first_line, is_out_of_memory, print_error, reason, say
from src.settings import FOLDERS, RULES


def option(*names, **given):
    """An option, or an argument, as argparse takes it."""
    return names, given


UTF8_LOCALES = ("C.UTF-8", "C.utf8", "UTF-8", "en_US.UTF-8")  # one of them is on every system
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

    def error(self, message):
        raise InputError(f"{message}; {self.prog} --help lists the options")

    def parse(self, words):
        """{option: value} of those that are given. Raises InputError if one is unknown or wrong."""
        given, unknown = self.parse_known_args(self._joined(words))
        if unknown:
            name = unknown[0].split("=")[0]
            options = [option[2:] for option in self._option_string_actions if option.startswith("--")]
            hint = did_you_mean(name.lstrip("-"), options, "--") or f"; {self.prog} --help lists the options"
            raise InputError(f"unknown argument {name}{hint}")
        return vars(given)

    def _joined(self, words):
        """The words, with `--classes -1,1` as `--classes=-1,1`: argparse takes -1,1 for an option."""
        result = []
        for word in words:
            option = self._option_string_actions.get(result[-1]) if result else None
            takes_value = option is not None and option.nargs != 0
            if takes_value and word[:1] == "-" and word.split("=")[0] not in self._option_string_actions:
                if word.startswith("--"):  # rather an option with a typing error
                    found = f"found {word}, expected a value; one that begins with a dash is given as"
                    self.error(f"argument {result[-1]}: {found} {result[-1]}={word}")
                result[-1] += f"={word}"
            else:
                result.append(word)
        return result

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
    for name in [name for name in os.environ if name.startswith("TQDM_")]:
        del os.environ[name]  # tqdm reads them when it is imported, and nonsense in them would end the program
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
        print_error(f"{error.filename or culprit(error)}: {reason(error)}")
        return 2
    except UnicodeEncodeError as error:
        found = f"found a character that the encoding {error.encoding} has not ({ascii(error.object)})"
        print_error(f"locale: {found}, expected one with UTF-8, such as LC_ALL=C.UTF-8")
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


def in_utf8():
    """Start the program again, in a locale with UTF-8, if Python takes the names of files for something else.

    That is what 3.6 does in the C locale, and all of them in one with Latin-1: a class would get another name.
    """
    if (
        sys.getfilesystemencoding() in ("utf-8", "mbcs") or "tensorflow" in sys.modules
    ):  # or it is somebody else's process
        return
    main = sys.modules["__main__"].__spec__
    words = ["-m", main.name] if main else sys.argv[:1]
    for name in UTF8_LOCALES:
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, name)
            if locale.nl_langinfo(locale.CODESET) == "UTF-8":
                os.environ["LC_ALL"] = name
                flags = subprocess._args_from_interpreter_flags()  # as multiprocessing takes them
                os.execv(sys.executable, [sys.executable, *flags, *words, *sys.argv[1:]])


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
    launch = f"launch --workers {trainer.cluster.world_size} " if trainer.cluster.launcher else ""
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
