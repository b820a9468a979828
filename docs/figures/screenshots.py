"""Screenshots of TensorBoard, by a headless Chromium."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import cv2

MAIN_GRAPH = 282, 108, 252, 322  # left, top, width, height on the page: LeNet-5 alone
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def take(logdir, scalars, graph):
    """Write screenshots of the scalars of the runs below a folder, and of the graph of the first run."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"note: found no {' or '.join(BROWSERS)} on PATH; {scalars} and {graph} are not regenerated")
        return
    with tensorboard(logdir) as address:
        shoot(browser, f"{address}/#scalars&_smoothingWeight=0&tagFilter=%5E(Accuracy%7CLoss)%2F", scalars, (1100, 752))
        shoot(browser, f"{address}/#graphs", graph, (1100, 900), MAIN_GRAPH)


@contextlib.contextmanager
def tensorboard(logdir):
    """Within the block, TensorBoard runs at the address that this yields."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--host", "127.0.0.1"]
    server = subprocess.Popen(command + ["--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/data/plugin/scalars/tags")
        yield address
    finally:
        server.terminate()
        server.wait()


def wait_for(address, seconds=120):
    """Wait until the page is not empty: TensorBoard answers before it has read its logs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            answer = urllib.request.urlopen(address).read()
            if len(answer) > 2:
                return
        time.sleep(1)
    raise TimeoutError(f"{address} is still empty after {seconds} seconds")


def shoot(browser, address, path, size, part=None):
    """Write a screenshot of a page, or of a part of it, at a higher resolution, to be sharp where it is shown."""
    scale = 1.5 if part is None else 3.5
    path = os.path.abspath(path)
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]
        command += [
            f"--user-data-dir={profile}",
            "--window-size={},{}".format(*size),
            f"--force-device-scale-factor={scale}",
        ]
        command += ["--virtual-time-budget=20000", "--timeout=60000", f"--screenshot={path}", address]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if part is not None:
        left, top, width, height = (int(scale * number) for number in part)
        cv2.imwrite(path, cv2.imread(path)[top : top + height, left : left + width])
