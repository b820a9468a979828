"""How fast the program is: make bench, or make bench QUICK=1 for the most important lines in a minute.

Each speed stands beside one to compare it with, measured in turn, so that a busy moment of the machine slows both: what
counts is their ratio, the median of the rounds, with the smallest and the largest. "Bare loops" are session.run over
the same graph with all images of an epoch in memory, for training and validation; a training program cannot be faster.
The images are made here: 32x32 PNG files as large as CIFAR-10's. If PyTorch is installed it is measured as well.
"""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, REPOSITORY)

from src.tf1 import IS_1_14, cpu_kernel_library, tf  # noqa: E402
from tests.bench.images import write_copies, write_images, write_photos  # noqa: E402
from tests.helpers.archives import pack  # noqa: E402
from utils.images.loader import inference_batch  # noqa: E402

CACHE_MB = 64  # for the line on memory
ONEDNN_OFF = {"TF_ENABLE_ONEDNN_OPTS": "0"}
HAS_TORCH = importlib.util.find_spec("torch") is not None
LINE = "%-45s %9s   %-34s %9s   %-18s  %s"


class Contender:
    """A function of tests/bench/benchmark_cases.py in a process of its own, ready to measure when it is made.

    Args:
        name: of the function.
        environment: variables to set.
        given: its arguments.
    """

    def __init__(self, name, environment=None, **given):
        command = [sys.executable, os.path.join(HERE, "benchmark_cases.py"), name, json.dumps(given)]
        self._process = subprocess.Popen(
            command,
            env=dict(os.environ, **(environment or {})),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )
        self._read()

    def _read(self):
        return json.loads(self._process.stdout.readline())

    def round(self):
        """Let it measure once."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def take_turns(contenders, rounds):
    """[the results of its rounds, as {what: array}] of each contender, but for a first round to warm up."""
    for contender in contenders:
        contender.round()
    results = [[contender.round() for contender in contenders] for _ in range(rounds)]
    for contender in contenders:
        contender.close()
    return [{key: np.array([row[i][key] for row in results]) for key in results[0][i]} for i in range(len(contenders))]


def row(what, ours, against, theirs, at_least=None):
    """Print one line; `ours` and `theirs` are speeds of rounds in turn."""
    ratios = np.divide(ours, theirs)
    ratio = f"{np.median(ratios):.2f} ({ratios.min():.2f}-{ratios.max():.2f})"
    print(
        (LINE % (what, f"{np.median(ours):.1f}", against, f"{np.median(theirs):.1f}", ratio, verdict(ratios, at_least)))
        .rstrip(),
        flush=True,
    )  # fmt: skip


def verdict(values, at_least=None, at_most=None):
    if at_least is None and at_most is None:
        return ""
    value = np.median(values)
    met = value >= at_least if at_most is None else value <= at_most
    limit = f"{at_least:.3g} or more" if at_most is None else f"{at_most:.3g} or less"
    return f"{limit}: {'met' if met else 'MISSED'}"


def describe_machine():
    processor = platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            facts = dict(
                line.rstrip().split("\t: ", 1) for line in file.read().split("\n\n")[0].splitlines() if ": " in line
            )
        facts = {name.strip(): value for name, value in facts.items()}
        wide = [
            flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if flag in facts.get("flags", "").split()
        ]
        processor = f"{facts.get('model name', processor)} ({' '.join(wide)})"
    versions = f"TensorFlow {tf.__version__}, OpenCV {cv2.__version__}, Python {platform.python_version()}"
    print(f"{versions}\n{processor}, {os.cpu_count()} cores; kernels: {cpu_kernel_library()}", flush=True)


def train_lenet5(folder, rounds):
    """The Trainer against bare loops and PyTorch."""
    given = {"train_path": folder}
    contenders = [Contender("trainer", **given), Contender("bare", cache_mb=0, **given)]
    if HAS_TORCH:
        contenders.append(Contender("eager", model_arch="lenet5", **given))
    ours, bare, *eager = take_turns(contenders, rounds)
    row("lenet5, 32 px: epochs", ours["epoch"], "bare loops", bare["epoch"], 0.95)
    row("lenet5, 32 px: training alone", ours["train"], "bare loop", bare["train"])
    for other in eager:
        row("lenet5, 32 px: training alone", ours["train"], "PyTorch eager", other["train"], 1.2)


def train_mobilenetv2(folder, img_size, rounds):
    given = {"model_arch": "mobilenetv2", "train_path": folder, "img_size": img_size, "validation_size": 0.1}
    contenders = [Contender("trainer", **given), Contender("bare", cache_mb=0, **given)]
    if HAS_TORCH and img_size == 96:
        contenders.append(Contender("eager", **given))
    ours, bare, *eager = take_turns(contenders, rounds)
    name = f"mobilenetv2, {img_size} px: training alone"
    row(name, ours["train"], "bare loop", bare["train"], 0.97 if img_size == 224 else None)
    for other in eager:
        row(name, ours["train"], "PyTorch eager, channels_last", other["train"])


def kernels_of_training(what, at_least, rounds, **given):
    """The kernels that src/tf1.py chooses against those without oneDNN."""
    if not IS_1_14:
        contenders = [Contender("bare", environment, cache_mb=0, **given) for environment in (None, ONEDNN_OFF)]
        ours, off = take_turns(contenders, rounds)
        row(f"{what}: training", ours["train"], "without oneDNN", off["train"], at_least)


def export(model_arch, folder, work):
    """A frozen graph of the network, after a step or two."""
    from trainer import Trainer

    trainer = Trainer(model_arch=model_arch, train_path=folder, batch_size=16)
    trainer.session.run(trainer.optimizer, dict(zip([trainer.x, trainer.y_true], trainer.data.train.next_batch(16))))
    path = trainer.export(last=True)
    trainer.close()
    return os.path.join(work, path)


def run_frozen(model_arch, graph, rounds):
    """Latency and throughput of a frozen graph, with oneDNN and without."""
    environments = [None] if IS_1_14 else [None, ONEDNN_OFF]
    ours, *off = take_turns([Contender("frozen", env, graph=graph, batches=[1, 32]) for env in environments], rounds)
    row(f"{model_arch} frozen: batches of 32", ours["32"], "one image at a time", ours["1"])
    for other in off:
        for size in ("1", "32"):
            milliseconds = 1000 * int(size) / np.median(ours[size])
            row(
                f"{model_arch} frozen: batch of {size} ({milliseconds:.1f} ms)",
                ours[size],
                "without oneDNN",
                other[size],
            )


def predict(model_arch, graph, folder, batch, rounds, at_least=None):
    contenders = [Contender("predict", graph=graph, folder=folder)]
    contenders.append(Contender("frozen", graph=graph, batches=[batch]))
    ours, frozen = take_turns(contenders, rounds)
    row(f"{model_arch}: predict, from files", ours["images"], "frozen graph", frozen[str(batch)], at_least)


def load(folder, img_size, rounds):
    given = {"folder": folder, "img_size": img_size}
    rivals = {"tf_data": f"tf.data, {os.cpu_count()} threads"}
    if HAS_TORCH:
        rivals["data_loader"] = f"PyTorch DataLoader, {os.cpu_count()} workers"
    contenders = [Contender("loader", cache_mb=cache_mb, **given) for cache_mb in (0, 1024)]
    contenders += [Contender(name, **given) for name in rivals]
    files, memory, *others = take_turns(contenders, rounds)
    for name, other in zip(rivals.values(), others):
        row(f"loader, {img_size} px: from PNG files", files["images"], name, other["images"])
    row(f"loader, {img_size} px: from memory", memory["images"], "from PNG files", files["images"])


def archives(folder, rounds):
    """A folder in archives, against the files; then both on a drive that takes 2 ms to open a file."""
    packed = {name: pack(folder, f"{folder}.{name}") for name in ("zip", "tar")}
    given = [{"folder": folder}] + [{"folder": path} for path in packed.values()]
    given += [dict(slow, slow_ms=2) for slow in given[:2]]
    files, *inside, slow_files, slow_zip = take_turns(
        [Contender("loader", img_size=32, **some) for some in given], rounds
    )
    for name, speeds in zip(packed, inside):
        row(f"loader, 32 px: from a {name}", speeds["images"], "from PNG files", files["images"], 0.9)
    row(
        "loader, 32 px: from a zip on a slow drive",
        slow_zip["images"],
        "from PNG files on a fast one",
        files["images"],
        0.9,
    )
    row("loader, 32 px: from a zip on a slow drive", slow_zip["images"], "from PNG files on it", slow_files["images"])


def many_files(work, folder, rounds):
    """Finding and dividing the images of a data set: its cost grows no faster than their number."""
    counts = (10000, 100000, 1000000)
    folders = [write_copies(folder, os.path.join(work, str(count)), count) for count in counts]
    some, *more = take_turns([Contender("find", folder=path) for path in folders], rounds)
    for count, speeds in zip(counts[1:], more):
        row(f"finding {count:,} images", speeds["images"], f"{counts[0]:,} images", some["images"], 0.8)


def photos(work, rounds):
    """Large JPEGs, against what others do with them; the rounds of all take turns."""
    for width, height, count, at_least in ((4000, 3000, 128, 2.0), (1632, 1224, 384, 1.5)):
        folder = write_photos(os.path.join(work, f"{width}"), count, width, height)
        rivals = {
            "OpenCV: imread, resize": ("reader", {"how": "opencv"}),
            "Pillow": ("reader", {"how": "pillow"}),
            "Pillow with draft": ("reader", {"how": "draft"}),
            f"tf.data, {os.cpu_count()} threads": ("tf_data", {}),
        }
        if HAS_TORCH:
            rivals[f"PyTorch DataLoader, {os.cpu_count()} workers, Pillow"] = ("data_loader", {"how": "pillow"})
        for img_size in (96, 224):
            given = {"folder": folder, "img_size": img_size}
            contenders = [Contender("loader", cache_mb=0, **given)]
            contenders += [Contender(name, **given, **options) for name, options in rivals.values()]
            ours, *others = take_turns(contenders, rounds)
            for against, other in zip(rivals, others):
                megapixels = f"{width * height / 1e6:.0f} megapixels to {img_size} px"
                row(f"photos, {megapixels}", ours["images"], against, other["images"], at_least)


def fixed_cost(folder, rounds):
    (ours,) = take_turns([Contender("fixed_cost", train_path=folder)], rounds)
    seconds = ours["seconds"]
    print(f"optimize() less its epochs: {np.median(seconds):.2f} s; {verdict(seconds, at_most=0.5)}", flush=True)


def memory(few, photos):
    """Resident memory of a Trainer, its cache full, beyond that of a bare loop."""
    given = {"model_arch": "mobilenetv2", "validation_size": 0.3}
    ours, bare = [
        contender.round()["rss_mb"]
        for contender in (
            Contender("trainer", train_path=photos, cache_mb=CACHE_MB, **given),
            Contender("bare", train_path=few, cache_mb=0, **given),
        )
    ]
    print(
        f"memory, mobilenetv2, 224 px, cache_mb = {CACHE_MB}: {ours:.0f} MB, bare loop {bare:.0f} MB; "
        f"{verdict(ours - bare, at_most=300)}",
        flush=True,
    )


def start_up(folder, rounds):
    """Seconds from start to end of commands, beside those of importing TensorFlow."""
    image = os.path.join(folder, "0", "00000.png")
    run = os.path.join(REPOSITORY, "run.py")
    commands = [["-c", "import tensorflow"]] + [
        [run, *words.split(), *paths]
        for words, *paths in (
            ["--help"], ["--lr x"], ["predict --help"], ["predict", image], ["summary"], ["export"],
            ["evaluate --test_path", folder], ["--train_path", folder],
        )
    ]  # fmt: skip
    seconds = np.array([[seconds_of(command) for command in commands] for _ in range(rounds)])
    print("\nstart-up: seconds from start to end", flush=True)
    for command, column in zip(commands, seconds.T):
        words = " ".join(os.path.basename(word) for word in command)
        ratio = np.median(column / seconds[:, 0])
        at_most = 1.3 if words.startswith("run.py predict 0") else None
        note = verdict([ratio], at_most=at_most) if at_most else ""
        print(f"  {words:45} {np.median(column):6.2f}   {ratio:.2f} of import tensorflow  {note}".rstrip(), flush=True)


def seconds_of(command):
    start = time.monotonic()
    subprocess.run([sys.executable] + command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def main(quick):
    with tempfile.TemporaryDirectory() as work:
        describe_machine()
        rounds = 5
        many = write_images(os.path.join(work, "many"), 5000 if quick else 50000)
        some = write_images(os.path.join(work, "some"), 160 if quick else 640)
        os.chdir(work)
        print("\n" + LINE % ("what", "images/s", "against", "images/s", "ratio (range)", "target"), flush=True)
        train_lenet5(many, rounds)
        kernels_of_training("lenet5, 32 px", 2.5, rounds, train_path=write_images(os.path.join(work, "fewer"), 3000))
        train_mobilenetv2(some, 96, rounds)
        if not quick:
            everything(work, some, rounds)
        fixed_cost(os.path.join(work, "fewer"), rounds)


def everything(work, some, rounds):
    """What takes longer than a minute."""
    mobilenetv2 = {"model_arch": "mobilenetv2", "validation_size": 0.1}
    kernels_of_training("mobilenetv2, 96 px", 1.3, rounds, train_path=some, img_size=96, **mobilenetv2)
    few = write_images(os.path.join(work, "few"), 180)
    train_mobilenetv2(few, 224, rounds)
    kernels_of_training("mobilenetv2, 224 px", None, rounds, train_path=few, img_size=224, **mobilenetv2)
    pictures = write_images(os.path.join(work, "pictures"), 1200)
    for model_arch, folder, batch, at_least in (
        ("lenet5", os.path.join(work, "many"), 100, None),
        ("mobilenetv2", pictures, inference_batch(224), 0.95),
    ):
        graph = export(model_arch, few, work)
        run_frozen(model_arch, graph, rounds)
        predict(model_arch, graph, folder, batch, rounds, at_least)
    load(os.path.join(work, "many"), 32, rounds)
    load(os.path.join(work, "many"), 224, rounds)
    archives(os.path.join(work, "many"), rounds)
    many_files(work, os.path.join(work, "fewer"), 3)
    photos(work, 3)
    pictures = write_images(os.path.join(work, "photos"), 900, 256, "jpg")
    memory(write_images(os.path.join(work, "fewest"), 60), pictures)
    start_up(some, 3)


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
