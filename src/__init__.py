"""Importing any module of src raises InputError if src/config.py or an environment variable is invalid."""

import os

from src import console  # noqa: F401, for utils/start.py, which cannot import it once this module has failed
from src.environment import check_environment
from src.errors import InputError, in_config

check_environment()

# Read when OpenCV is imported, which then rejects images whose header claims more (0.8 GB decoded), not allocating it.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))

try:
    from src import config, config_module  # noqa: F401, from now on src.config computes its derived settings
except (Exception, SystemExit) as error:  # users edit src/config.py: anything may be raised
    raise InputError(in_config(error)) from error
