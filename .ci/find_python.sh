#!/bin/sh
# Find a Python that one of the two TensorFlows runs on, for the Makefile.
#
#   sh .ci/find_python.sh [python3.7 | python3.11 | /path/to/python | ...]
#
# Prints one line, "VERSION TENSORFLOW PATH" such as "3.7 1.14.0 /usr/bin/python3.7", or "error: ..." with exit code 2.
# Without an argument it takes the python3 that is active, the first on PATH, then the newest that fits. A pyenv shim may
# exist and not run: then pyenv's own folders are searched for the same version. Of a virtual environment it names the
# Python that this was made with: the environment itself may be about to be made again.

versions="${PYENV_ROOT:-$HOME/.pyenv}/versions"
wanted=$1

probe() {
    "$1" -c '
import os, platform, sys
version = sys.version_info[:2]
name = "%d.%d" % version
path = sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable)
x86 = platform.machine() in ("x86_64", "AMD64") and sys.maxsize > 2 ** 32
if version in ((3, 6), (3, 7)) and x86 and sys.platform.startswith("linux"):
    print(name + " 1.14.0 " + path)
elif (3, 11) <= version <= (3, 13):
    print(name + " 2.21.0 " + path)
else:
    print("unfit " + name)
' 2>/dev/null
}

found=
# As a path, or none, python3 is not searched for under pyenv, which would know several.
[ -n "$wanted" ] || set -- "$(command -v python3 || echo none)" python3.13 python3.12 python3.11 python3.7 python3.6
for name do
    for python in "$name" "$versions/${name#python}"/bin/python "$versions/${name#python}".*/bin/python; do
        answer=$(probe "$python") || continue
        case $answer in
            3.*) printf '%s\n' "$answer"; exit 0 ;;
            unfit*) found=${found:-$answer} ;;
        esac
    done
done

if [ -z "$wanted" ]; then
    found="no Python that fits on PATH or under pyenv"
elif [ -z "$found" ]; then
    found="PYTHON=$wanted, which does not run"
else
    found="PYTHON=$wanted, which is Python ${found#unfit }"
fi
echo "error: found $found; install Python 3.11, 3.12 or 3.13 (TensorFlow 2.21), or on Linux x86-64 Python 3.7 or 3.6 (TensorFlow 1.14)"
exit 2
