"""Whether the processor has what TensorFlow's packages need: without AVX, importing them kills the process."""

import platform

from src.errors import InputError
from src.system import has_avx


def check_processor():
    """Raise InputError if this is an x86 processor without AVX; others, such as ARM's, do not need it."""
    if platform.machine().lower() in ("x86_64", "amd64") and not has_avx():
        hint = "use another computer; in a virtual machine, let it have the host's processor (QEMU: -cpu host)"
        raise InputError("processor", "no AVX", "AVX, which TensorFlow's packages need", hint)
