"""Do what the guide says: run the commands and programs of README.md, CONTRIBUTING.md and docs/, as they stand there.

    python tests/docs/run_docs.py [PAGE ...]     or make guide

Each page gets a copy of the project of its own, with stand-ins for what its commands need: see prepare(). Its blocks
run there from top to bottom, each in a shell or Python of its own, so that files stay and variables do not; python,
tensorboard and make are those of the environment that runs this. markdown_pages.py says how a page is written. A block
that ends with tensorboard never ends: it is waited for until it answers, and then stopped with Ctrl-C.

The last column is ok, FAILED with what was printed, or why it was not run. The exit code is 1 if one FAILED.
"""

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from tests.docs.markdown_pages import RUN, Block, commands, read_pages  # noqa: E402
from utils.commands.prepare import CIFAR10_CLASSES  # noqa: E402

LIMIT = 600  # seconds for a block
OUTPUTS = ("data", "checkpoints", "graphs", "weights")  # of these, .gitignore and README.md alone are the project's
LEFT_OUT = (".git", ".venv", "flowers", "photos", "photo.jpg")
PROGRAM = "program.py"  # the python block that is running
TAIL = 30  # lines that are shown of what a block printed before it failed


def main(names):
    pages = read_pages(ROOT)
    unknown = [name for name in names if name not in pages]
    if unknown:
        print(f"error: found no page {unknown[0]}, expected some of {', '.join(pages)}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # the block that is running is ended as well
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        project = os.path.join(work, "project")
        for name in names or pages:
            if any(runs(block) for block in pages[name].blocks) and not os.path.exists(project):
                prepare(project)
            failed += run_page(pages[name], project)
    print(f"{failed} blocks FAILED" if failed else "all blocks ok")
    return 1 if failed else 0


def runs(block):
    return block.language in RUN and block.mark is None


def run_page(page, project):
    """Run a page's blocks in a copy of the project, with a line for each; returns how many failed."""
    folder = os.path.join(os.path.dirname(project), "page")
    if any(map(runs, page.blocks)):
        shutil.copytree(project, folder, symlinks=True)
    failed = 0
    for block in page.blocks:
        if block.language not in RUN:
            continue
        place, started = f"{page.path}:{block.line}", time.monotonic()
        problem = run_block(block, folder) if runs(block) else None
        outcome = f"not run ({block.mark})" if problem is None else "FAILED" if problem else "ok"
        print(f"{place:26} {time.monotonic() - started:6.1f} s  {outcome}", flush=True)
        if problem:
            failed += 1
            print("    " + "\n    ".join(problem.split("\n")), flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return failed


def run_block(block, folder):
    """Run a block; returns what is wrong with it, or ""."""
    words = ["sh", "-ec", block.text]
    if block.language == "python":
        words = ["python", PROGRAM]
        with open(os.path.join(folder, PROGRAM), "w", encoding="utf-8") as file:
            file.write(block.text)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": errors if block.printed else output}
        process = subprocess.Popen(words, cwd=folder, env=environment(folder), start_new_session=True, **streams)
        try:
            problem = wait_for_server(process, output) if serves(block) else wait(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it may have left running, too
            process.wait()
        printed = read(output)
        if not problem and block.printed and tidy(printed) != tidy(block.printed):
            problem = f"expected:\n{tidy(block.printed)}\nprinted:"
        tail = "\n".join(tidy(printed + read(errors)).split("\n")[-TAIL:])
    return f"{problem}\n{tail}" if problem else ""


def environment(folder):
    """The environment variables of a reader who has activated the environment that runs this."""
    # What make tells the make that it calls would come before what stands in the page.
    ours = ("PYTHONPATH", "PYTHON", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "TF_CONFIG")
    result = {name: value for name, value in os.environ.items() if name not in ours}
    result["PATH"] = os.path.join(folder, venv(), "bin") + os.pathsep + result["PATH"]
    return result


def venv():
    return ".venv/{}.{}".format(*sys.version_info)


def wait(process):
    try:
        code = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        return f"it still ran after {LIMIT} seconds"
    return f"exit code {code}" if code else ""


def serves(block):
    """Whether a block ends with a command that runs until it is stopped."""
    last = (commands(block.text) or [""])[-1] if block.language == "sh" else ""
    return re.match(r"(\S*/)?tensorboard\b", last) is not None


def wait_for_server(process, output):
    """Until a server answers at the address that it prints; then stop it with Ctrl-C."""
    deadline = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        address = re.search(r"http://\S+", read(output))
        if address and answers(address.group()):
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(60)
            return f"exit code {code} after Ctrl-C" if code not in (0, 130, -signal.SIGINT) else ""
        time.sleep(0.2)
    return "it did not answer"


def answers(address):
    with suppress(OSError), urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=10):
        return True
    return False


def read(file):
    """What a process has written; at its own position, which is the process's as well."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8", "replace")


def tidy(text):
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def prepare(project):
    """Make the copy of the project that every page starts from, with stand-ins for what its commands need.

    data/digitspng       the digits, as `python run.py prepare digits` makes them
    data/cifar10png      digits again, in the folders of CIFAR-10's ten classes: 24 to train and 8 to test in each
    flowers/             digits again, 0 as rose and 1 as tulip: 40 to train and 10 to test in each
    photos/              the 80 flowers to train on
    photo.jpg            a digit
    weights/lenet5/      a LeNet5 that has learned the digits, with its checkpoints/ and graphs/
    """
    shutil.copytree(ROOT, project, ignore=not_copied)
    os.makedirs(os.path.join(project, ".venv"))
    os.symlink(sys.prefix, os.path.join(project, venv()))
    for environment_of in glob.glob(os.path.join(ROOT, ".venv", "*.*")):
        if os.path.basename(environment_of) != os.path.basename(venv()):
            os.symlink(environment_of, os.path.join(project, ".venv", os.path.basename(environment_of)))
    with open(os.path.join(project, ".venv", "last"), "w") as file:
        file.write(os.path.basename(venv()))
    requirements = [os.path.join("constraints", name) for name in os.listdir(os.path.join(project, "constraints"))]
    requirements += [os.path.join(folder, "requirements.txt") for folder in ("", "convert", "docs")]
    for name in requirements:
        os.utime(os.path.join(project, name), (0, 0))  # older than what is installed, so that make installs nothing
    train = "python run.py --train_path data/digitspng/train --test_path data/digitspng/test --num_epoch 30"
    train += " --augment crop --step_rate 15"  # as make run
    started = time.monotonic()
    problem = run_block(Block(0, "sh", f"python run.py prepare digits\n{train}\n", None, None, True), project)
    if problem:
        sys.exit(f"error: stand-ins: {problem}")
    for index, name in enumerate(CIFAR10_CLASSES):
        copy_digits(project, index, f"data/cifar10png/{{part}}/{name}/{{number:05d}}.png", (32, 32), train=24, test=8)
    for index, name in enumerate(("rose", "tulip")):
        copy_digits(project, index, f"flowers/{{part}}/{name}/{{number}}.jpg", (320, 240), train=40, test=10)
    shutil.copytree(os.path.join(project, "flowers", "train"), os.path.join(project, "photos"))
    shutil.copy(os.path.join(project, "flowers", "test", "rose", "1.jpg"), os.path.join(project, "photo.jpg"))
    print(f"{'(stand-ins)':26} {time.monotonic() - started:6.1f} s", flush=True)


def not_copied(folder, names):
    inside = os.path.relpath(folder, ROOT)
    if inside in OUTPUTS:
        return [name for name in names if name not in (".gitignore", "README.md")]
    return [name for name in names if name.endswith(("cache", "cache__")) or (inside == "." and name in LEFT_OUT)]


def copy_digits(project, digit, target, size, **counts):
    """Copies of the digits of one kind under other names, enlarged."""
    import cv2

    for part, count in counts.items():
        source = os.path.join(project, "data", "digitspng", part, str(digit))
        for number, name in enumerate(sorted(os.listdir(source))[:count], 1):
            path = os.path.join(project, target.format(part=part, number=number))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            cv2.imwrite(path, cv2.resize(cv2.imread(os.path.join(source, name)), size))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
