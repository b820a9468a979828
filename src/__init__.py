import os
import sys

from src.console import print_error
from src.environment import check_environment
from src.errors import InputError, in_config

try:
    check_environment()
except InputError as error:
    print_error(error)
    sys.exit(2)

# OpenCV reads it when it is imported: an image that claims to be larger, of 0.8 GB, is refused, not given the memory.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))

try:
    from src import config, settings  # noqa: F401, from now on src.config also has what follows from its values
except (Exception, SystemExit) as error:  # src/config.py is edited by its users, in whatever way
    print_error(in_config(error))
    sys.exit(2)
