"""A processor without AVX ends a command in one line, where importing TensorFlow would kill the process."""

import platform
import subprocess
from types import SimpleNamespace

import pytest

from src import system
from src.errors import InputError
from src.processor import check_processor
from src.system import has_avx
from tests.conftest import python

# Of /proc/cpuinfo: a QEMU64 processor, and one of 2011 and later.
WITHOUT_AVX = (
    "flags\t\t: fpu de pse tsc sse sse2 ht syscall nx lm pni cx16 x2apic hypervisor lahf_lm svm 3dnowprefetch\n"
)
WITH_AVX = "flags\t\t: fpu de pse tsc sse sse2 ssse3 sse4_1 sse4_2 x2apic popcnt aes xsave avx f16c rdrand avx2\n"
AARCH64 = "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics\n"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """Let Linux say this of each of two processors: cpuinfo(line)."""

    def write(line):
        path = tmp_path / "cpuinfo"
        path.write_text(2 * f"processor\t: 0\nvendor_id\t: GenuineIntel\n{line}bugs\t\t:\n\n")
        monkeypatch.setattr(system, "CPUINFO", str(path))
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(system, "SYSTEM", "linux")
        return str(path)

    return write


@pytest.mark.parametrize("line, expected", [
    (WITHOUT_AVX, False),
    (WITHOUT_AVX.replace("lahf_lm", "avx512_bf16 vavx"), False),  # other words
    (WITH_AVX, True),
    ("", True),  # no line with flags
])  # fmt: skip
def test_linux_lists_what_the_processor_has(cpuinfo, line, expected):
    cpuinfo(line)
    assert has_avx() == expected


def test_where_linux_does_not_say_it_is_left_to_tensorflow(monkeypatch):
    monkeypatch.setattr(system, "SYSTEM", "linux")
    monkeypatch.setattr(system, "CPUINFO", "/nowhere")
    assert has_avx()


@pytest.mark.parametrize("features, expected", [
    ("FPU VME SSE3 SSE4.2 AVX1.0 RDRAND F16C", True), ("FPU VME SSE3 SSE4.2 POPCNT", False), (None, True),
])  # fmt: skip
def test_macos_answers_a_command(monkeypatch, features, expected):
    def check_output(command, **options):
        assert command == ["sysctl", "-n", "machdep.cpu.features"]
        if features is None:
            raise subprocess.CalledProcessError(1, command)
        return features + "\n"

    monkeypatch.setattr(system, "SYSTEM", "macos")
    monkeypatch.setattr(subprocess, "check_output", check_output)
    assert has_avx() == expected


@pytest.mark.parametrize("answer", [0, 1])
def test_windows_answers_a_call(monkeypatch, answer):
    import ctypes

    kernel32 = SimpleNamespace(IsProcessorFeaturePresent=lambda feature: answer if feature == 39 else 1 - answer)
    monkeypatch.setattr(system, "ON_WINDOWS", True)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel32), raising=False)
    assert has_avx() == bool(answer)


def test_arm_needs_no_avx(cpuinfo, monkeypatch):
    cpuinfo(AARCH64 + WITHOUT_AVX)
    for machine in ("aarch64", "arm64"):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        check_processor()
    for machine in ("x86_64", "AMD64"):  # the latter on Windows
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        with pytest.raises(
            InputError, match="^processor: found no AVX, expected AVX, which TensorFlow's packages need"
        ):
            check_processor()


@pytest.mark.parametrize("command, code", [("train", 2), ("evaluate", 2), ("summary", 2), ("prepare digits", 0)])
def test_a_command_says_it_before_tensorflow_is_imported(tmp_path, cpuinfo, command, code):
    """Those that need no TensorFlow work."""
    path = cpuinfo(WITHOUT_AVX)
    program = f"""
import platform, sys
from src import system
system.CPUINFO = {path!r}
platform.machine = lambda: "x86_64"
import run
code = run.main({command.split()!r})
assert not [name for name in sys.modules if name.startswith("tensorflow")]
sys.exit(code)
"""
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr.startswith("error: processor: found no AVX, expected AVX") and done.stderr.count("\n") == 1
