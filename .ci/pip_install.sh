#!/bin/sh
# Install packages into a virtual environment with pip, for the Makefile: a line for each, to show progress.
#
#   sh .ci/pip_install.sh .venv/3.11 --requirement requirements.txt ...
#
# If pip's index cannot be reached, the error is one line, "error: ..." with exit code 2; pip itself would retry for each
# package, and then say that there is no such version. Any other error is printed as pip words it.

venv=$1
shift
errors=$venv/pip-errors status=$venv/pip-status downloads=$venv/pip-downloads
trap 'rm -rf "$downloads"' EXIT

pip() {
    command=$1
    shift
    "$venv/bin/python" -m pip "$command" --disable-pip-version-check --no-color "$@"
}

# Why the last retry failed, out of what pip has printed: "... after connection broken by 'NewConnectionError('...: [Errno
# -3] Temporary failure in name resolution')': /simple/pip/", or the last line of its traceback.
reason() {
    sed -n "s/': \/.*//
        s/.*Retry(total=0.*connection broken by//p
        s/^pip\._vendor\.[a-z0-9]*\.exceptions\.//p" "$errors" | tail -n 1 |
        sed "s/.*\] //; s/.*[:,] //; s/ *(.*//; s/[]\"'),.]*$//; s/^[\"']*//"
}

stop_if_unreachable() {
    why=$(reason)
    [ -n "$why" ] || return 0
    index=$(sed -n 's/^Looking in indexes: //p' "$errors")
    printf '%s\n' "error: pip cannot reach ${index:-https://pypi.org/simple}: $why; check the network and its proxy, or see \
Offline installation in docs/setup.md"
    exit 2
}

# One small download with a single retry shows whether the index can be reached. If not, all may be installed already.
if ! pip download --retries 1 --no-deps --dest "$downloads" pip >"$errors" 2>&1; then
    pip install --no-index "$@" >/dev/null 2>&1 && exit 0
    stop_if_unreachable
fi

{
    pip install --progress-bar off "$@" 2>"$errors"
    echo $? >"$status"
} | sed -n 's/^Collecting \([^ ;]*\).*/  \1/p; s/^Installing.*/  installing them .../p'
[ "$(cat "$status")" != 0 ] || exit 0
stop_if_unreachable
cat "$errors" >&2
exit 2
