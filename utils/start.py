"""Importing without tracebacks."""

import contextlib
import sys


@contextlib.contextmanager
def guarded_imports(name):
    """For the imports of a program: an invalid src/config.py ends it with one line and exit code 2, Ctrl-C with 130.

    Args:
        name: the program's __name__. Where it is only imported, by a test for one, exceptions pass.
    """
    if name != "__main__":
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)  # ExitCode.INTERRUPTED, which may not be imported yet
    except Exception as error:
        from src.console import print_error  # these two can be imported even if src has failed
        from src.errors import ExitCode, InputError

        if not isinstance(error, InputError):
            raise
        print_error(error)
        sys.exit(ExitCode.BAD_INPUT)
