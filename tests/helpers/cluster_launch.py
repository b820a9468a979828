"""run.py launch in a process of its own."""

import os
import sys

from tests.conftest import REPOSITORY
from tests.helpers.processes import Started, children

RUN_PY = os.path.join(REPOSITORY, "run.py")


class Launched(Started):
    """run.py launch in a process of its own."""

    def __init__(self, *arguments, workers=2):
        command = [sys.executable, RUN_PY, "launch", "--workers", str(workers), *arguments]
        # As they may be set; there are no GPUs.
        super().__init__(command, dict(os.environ, CUDA_VISIBLE_DEVICES="0,1", TF_CONFIG="{}"))

    def workers(self):
        """The processes that it has started, the chief first."""
        return children(self.process.pid)


def of_digits(digits, epochs):
    return ["--train_path", f"{digits}/train", "--test_path", f"{digits}/test", "--batch_size", "16",
            "--num_epoch", str(epochs)]  # fmt: skip
