class InputError(Exception):
    """Something the user gave is wrong: a setting, a file, a folder.

    The message is one line that names it, says what was found and what was expected.
    run.py prints that line and ends with exit code 2.
    """
