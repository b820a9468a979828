import os
import sys

from src.errors import in_config, print_error

# OpenCV reads it when it is imported: an image that claims to be larger, of 0.8 GB, is refused, not given the memory.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))

try:
    from src import config, settings  # noqa: F401, from now on src.config also has what follows from its values
except (Exception, SystemExit) as error:  # src/config.py is edited by its users, in whatever way
    print_error(in_config(error))
    sys.exit(2)
