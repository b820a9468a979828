"""The start of a program."""

import contextlib
import sys


@contextlib.contextmanager
def guarded_imports(name):
    """Around the imports of a program: a src/config.py that cannot be used is one line and exit code 2, Ctrl-C is exit
    code 130. Where the program is only imported, by another one or a test, these are exceptions like all others.

    Args:
        name: the program's __name__.
    """
    if name != "__main__":
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)  # ExitCode.INTERRUPTED, which may not be imported yet
    except Exception as error:
        from src.console import print_error  # these two are imported even where src itself has failed
        from src.errors import ExitCode, InputError

        if not isinstance(error, InputError):
            raise
        print_error(error)
        sys.exit(ExitCode.BAD_INPUT)
