import sys

from src.errors import in_config, print_error

try:
    from src import config, settings  # noqa: F401, from now on src.config also has what follows from its values
except (Exception, SystemExit) as error:  # src/config.py is edited by its users, in whatever way
    print_error(in_config(error))
    sys.exit(2)
