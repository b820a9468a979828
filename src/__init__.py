"""Importing anything of src raises InputError if src/config.py, or a variable of the environment, cannot be used."""

import os

from src import console  # noqa: F401, for utils/start.py, which can import nothing of src once this has failed
from src.environment import check_environment
from src.errors import InputError, in_config

check_environment()

# OpenCV reads it when it is imported: an image that claims to be larger, of 0.8 GB, is refused, not given the memory.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))

try:
    from src import config, config_module  # noqa: F401, from now on src.config also has its derived settings
except (Exception, SystemExit) as error:  # src/config.py is edited by its users, in whatever way
    raise InputError(in_config(error)) from error
