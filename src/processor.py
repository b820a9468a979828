"""Whether the processor has what TensorFlow's packages need: without AVX, importing them kills the process."""

import platform
import re
import subprocess
import sys

from src.errors import InputError

CPUINFO = "/proc/cpuinfo"  # of Linux
PF_AVX_INSTRUCTIONS_AVAILABLE = 39  # of Windows


def check_processor():
    """Raise InputError if this is an x86 processor without AVX; others, such as ARM's, do not need it."""
    if platform.machine().lower() in ("x86_64", "amd64") and not has_avx():
        hint = "use another computer; in a virtual machine, let it have the host's processor (QEMU: -cpu host)"
        raise InputError("processor", "no AVX", "AVX, which TensorFlow's packages need", hint)


def has_avx():
    """What the system says of an x86 processor; True if it says nothing."""
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(PF_AVX_INSTRUCTIONS_AVAILABLE))
    try:
        if sys.platform == "darwin":
            features = subprocess.check_output(["sysctl", "-n", "machdep.cpu.features"], universal_newlines=True)
        else:
            with open(CPUINFO, encoding="utf-8", errors="replace") as file:
                features = re.search(r"^flags\s*:(.*)", file.read(), re.MULTILINE).group(1)
    except (OSError, subprocess.CalledProcessError, AttributeError):  # the last one: no line with flags
        return True
    return re.search(r"\bavx(1\.0)?\b", features.lower()) is not None
