"""How fast it is: make bench

Each line of the table is a speed in images/s beside that of something to compare with, measured in turn in this same
process; their ratio is what counts, for it hardly depends on the machine, and above 1 means that ours is the faster.
The images are made up, as large and as quick to decode as CIFAR-10's. If PyTorch is installed it is measured as well.
"""

import contextlib
import io
import os
import platform
import resource
import sys
import tempfile
import time

import cv2
import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from dataset import DataSet, find_images
from src.settings import settings
from src.tf1 import tf
from trainer import EVALUATION_BATCH, Trainer
from utils.images import list_images, normalization_table, preprocess, read_image
from utils.loader import THREADS, Cache
from utils.predictor import BATCH as PREDICTOR_BATCH
from utils.predictor import load

try:
    import torch
except ImportError:
    torch = None

LEGACY = tf.__version__.startswith("1.")
BATCH = 32
CLASSES = 10
CACHE_MB = 64  # for the memory line; all images together are 146
TABLE = sys.stdout
LINE = "%-47s %9s   %-37s %9s   %5s   %s"


def main():
    # The lines of the Trainer are not to come between those of the table.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        say(f"TensorFlow {tf.__version__}, OpenCV {cv2.__version__}, Python {platform.python_version()}")
        say(f"{os.cpu_count()} cores, {platform.machine()}")
        path, few = os.path.join(folder, "many"), os.path.join(folder, "few")
        write_images(path, 50000)
        write_images(few, 120)
        os.chdir(folder)
        say(f"\n{LINE % ('what', 'images/s', 'against', 'images/s', 'ratio', 'target')}")
        memory(path)
        loads = [loader(path, 32, 8000, 1.3, 100000), loader(path, 224, 2000, 3)]
        trains = [lenet5(path), mobilenetv2(few)]
        for size, load, name, train in zip((32, 224), loads, ("lenet5", "mobilenetv2"), trains):
            slower = "graph" if load > train else "loader"
            say(f"bottleneck of {name} at {size} px here: the {slower}")
            say(f"  (it could train {train:.0f} images/s; the loader reads {load:.0f})")


def write_images(path, count):
    """Class folders of smooth 32x32 images with some noise: PNG files of about 2.3 kB, like CIFAR-10's."""
    random = np.random.RandomState(0)
    for number in range(count):
        folder = os.path.join(path, str(number % CLASSES))
        os.makedirs(folder, exist_ok=True)
        image = cv2.resize(random.randint(0, 256, (6, 6, 3)).astype(np.uint8), (32, 32)) / 2
        image += random.randint(0, 32, image.shape)
        cv2.imwrite(os.path.join(folder, f"{number:05d}.png"), image.astype(np.uint8))


def say(line):
    print(line.rstrip(), file=TABLE, flush=True)


def row(what, ours, against, theirs, least=None):
    """Print one line; `ours` and `theirs` are speeds, of one round or of several."""
    ratio = np.median(np.divide(ours, theirs))
    verdict = "" if least is None else f"{least:.3g} or more: {'met' if ratio >= least else 'MISSED'}"
    say(LINE % (what, f"{np.median(ours):.1f}", against, f"{np.median(theirs):.1f}", f"{ratio:.2f}", verdict))


def speed(step, images, seconds=2.0, least=3):
    """images/s of a step that handles so many, called with 0, 1, 2, ..."""
    start, steps = time.time(), 0
    while time.time() - start < seconds or steps < least:
        step(steps)
        steps += 1
    return steps * images / (time.time() - start)


def in_turn(rounds, *measurements):
    """Call each, one after another, so many rounds: an array of speeds for each."""
    for measure in measurements:
        measure()  # what is slow only once
    return np.array([[measure() for measure in measurements] for _ in range(rounds)]).T


def memory(path):
    """Resident memory while training goes through more images than the cache holds."""
    trainer = Trainer(train_path=path, cache_mb=0)
    images, labels, _, _ = trainer.data.train.next_batch(BATCH)
    trainer.session.run(trainer.optimizer, {trainer.x: images, trainer.y_true: labels})
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize() / 2.0**20
    trainer.close()
    trainer = Trainer(train_path=path, cache_mb=CACHE_MB)
    trainer.optimize(1)
    trainer.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    met = "met" if peak - before <= CACHE_MB + 200 else "MISSED"
    say(
        f"memory: {before:.0f} MB after one step; at most {peak - before:.0f} MB more in an epoch with "
        f"cache_mb = {CACHE_MB}; target {CACHE_MB + 200} or less: {met}"
    )


def loader(path, size, count, least, least_cached=None):
    """From files and from memory to batches; returns the speed from files."""
    config = settings(train_path=path, img_size=size, total_class=CLASSES)
    paths, labels = find_images("train_path", path, config.classes)
    chosen = np.random.RandomState(0).permutation(len(paths))[:count]
    paths, labels = [paths[index] for index in chosen], labels[chosen]

    streamed, cached = (DataSet(paths, labels, config, Cache(megabytes)) for megabytes in (0, 1024))
    rivals = [(f"tf.data, {THREADS} threads", tf_data(paths, labels, size))]
    if torch:
        rivals.append((f"PyTorch DataLoader, {THREADS} workers", data_loader(paths, labels, config)))
    files, kept, *others = in_turn(
        3,
        *[
            lambda batches=batches: through(batches())
            for batches in [lambda: streamed.batches(BATCH), lambda: cached.batches(BATCH)]
            + [rival for _, rival in rivals]
        ],
    )
    for (name, _), other in zip(rivals, others):
        row(f"loader from PNG files, {size} px", files, name, other, least if "tf.data" in name else None)
    row(f"loader from memory, {size} px", kept, "from PNG files", files)
    if least_cached:
        row(f"loader from memory, {size} px", kept, "100,000 images/s", [least_cached], 1)
    return np.median(files)


def through(batches):
    """images/s of going through batches."""
    start = time.time()
    images = sum(len(batch[0]) for batch in batches)
    return images / (time.time() - start)


def tf_data(paths, labels, size):
    """The same work by TensorFlow's own pipeline, as a function that returns its batches."""

    def read(path, label):
        image = tf.image.resize_bilinear(tf.image.decode_png(tf.read_file(path), 3)[tf.newaxis], [size, size])[0]
        return (image / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], tf.one_hot(label, CLASSES)

    def batches():
        with tf.Graph().as_default(), tf.Session() as session:
            data = tf.data.Dataset.from_tensor_slices((paths, labels)).map(read, THREADS).batch(BATCH).prefetch(2)
            batch = tf.data.make_one_shot_iterator(data).get_next()
            try:
                while True:
                    yield session.run(batch)
            except tf.errors.OutOfRangeError:
                pass

    return batches


def data_loader(paths, labels, config):
    """The same work by PyTorch's DataLoader, which reads in processes, as a function that returns its batches."""
    table = normalization_table(config.image_normalize_mean, config.image_normalize_std)

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            return preprocess([read_image(paths[index])], config.img_size, "bgr", table)[0], labels[index]

    return lambda: torch.utils.data.DataLoader(Images(), BATCH, num_workers=THREADS)


class TimedTrainer(Trainer):
    """Notes the seconds of each epoch, of its training and in all; its clock stands while `between` is called."""

    def time_epochs(self, num_epoch, between):
        self.seconds, self.between = [], between
        between()
        self.start = time.time()
        self.optimize(num_epoch)
        return np.array(self.seconds).T

    def evaluate(self, data):
        self.trained = time.time() - self.start
        return Trainer.evaluate(self, data)

    def save(self):
        Trainer.save(self)
        self.seconds.append((self.trained, time.time() - self.start))
        self.between()
        self.start = time.time()


class Bare:
    """session.run in a loop over the same graph with arrays in memory: what no training program can be faster than."""

    def __init__(self, **given):
        self.trainer = trainer = Trainer(**given)
        trainer.data.train.epochs_completed = 1
        self.batches = [batch[:2] for _, batch in zip(range(64), trainer.data.train.epoch(BATCH))]
        images, labels = (np.concatenate(part) for part in zip(*self.batches))
        self.large_batches = [
            (images[start : start + EVALUATION_BATCH], labels[start : start + EVALUATION_BATCH])
            for start in range(0, max(1, len(images) - EVALUATION_BATCH), EVALUATION_BATCH)
        ]

    def train(self):
        return self._speed([self.trainer.optimizer, self.trainer.cost, self.trainer.accuracy], self.batches)

    def forward(self):
        return self._speed(self.trainer.inference, self.large_batches)

    def _speed(self, fetches, batches):
        def step(index):
            images, labels = batches[index % len(batches)]
            self.trainer.session.run(fetches, {self.trainer.x: images, self.trainer.y_true: labels})

        return speed(step, len(batches[0][0]))


def lenet5(path):
    """Epochs of the Trainer and bare loops in turn, then epochs and PyTorch; returns the bare loop's speed."""
    bare, rivals = Bare(train_path=path), []
    trainer = TimedTrainer(train_path=path)
    trained = trainer.data.train.num_examples // BATCH * BATCH
    validated = trainer.data.valid.num_examples
    seconds = trainer.time_epochs(5, lambda: rivals.append((bare.train(), bare.forward())))
    train, forward = before_and_after(rivals)
    floor = trained / train + validated / forward
    images = trained + validated
    row(
        "lenet5: first epoch, from PNG files",
        images / seconds[1, :1],
        "bare loops",
        images / floor[:1],
        1 / 1.2 if LEGACY else 1 / 1.6,
    )
    row("lenet5: later epochs", images / seconds[1, 1:], "bare loops", images / floor[1:], 1 / 1.1)
    row("lenet5: later epochs, training alone", trained / seconds[0, 1:], "bare loop", train[1:])
    row(
        "lenet5: later epochs, validation and saving",
        validated / (seconds[1, 1:] - seconds[0, 1:]),
        "bare loop",
        forward[1:],
    )
    predictor, paths = load(trainer.export()), list_images(path)[:8000]
    files = DataSet(paths, np.zeros(len(paths), int), trainer.config, Cache(0))
    asked, read, frozen = in_turn(
        3, lambda: answers(predictor, paths), lambda: through(files.batches(BATCH)), bare.forward
    )
    row("lenet5: predict, files to answers", asked, "loader alone", read)
    row("lenet5: predict, files to answers", asked, "bare loop alone", frozen)
    if torch:
        eager, rivals = torch_lenet5(bare.batches), []
        seconds = trainer.time_epochs(3, lambda: rivals.append(eager()))
        row(
            "lenet5: later epochs, training alone",
            trained / seconds[0],
            "PyTorch eager, arrays in memory",
            before_and_after(rivals),
            1 / 0.85,
        )
    return np.median(train)


def answers(predictor, paths):
    """images/s of predict, but for the printing."""
    start = time.time()
    return len(list(predictor.classify(paths))) / (time.time() - start)


def before_and_after(speeds):
    """For each epoch, the mean of what was measured before it and after it."""
    return (np.array(speeds[1:]) + np.array(speeds[:-1])).T / 2


def torch_lenet5(batches):
    """The same network and optimizer in PyTorch, as a function that measures its speed."""
    nn = torch.nn
    torch.set_num_threads(os.cpu_count())
    batches = [
        (torch.tensor(images.transpose(0, 3, 1, 2).copy()), torch.tensor(labels.argmax(1)))
        for images, labels in batches
    ]
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, CLASSES),
    )
    adam = torch.optim.Adam(net.parameters(), lr=0.01, eps=0.01)

    def step(index):
        images, labels = batches[index % len(batches)]
        adam.zero_grad()
        logits = net(images)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        adam.step()
        return loss.item(), (logits.argmax(1) == labels).float().mean().item()

    return lambda: speed(step, BATCH)


def mobilenetv2(path):
    """Three epochs in turn with the bare loop, then the frozen graph; returns the bare loop's speed."""
    given = {"model_arch": "mobilenetv2", "train_path": path}
    bare, rivals = Bare(**given), []
    trainer = TimedTrainer(**given)
    trained = trainer.data.train.num_examples // BATCH * BATCH
    seconds = trainer.time_epochs(4, lambda: rivals.append(bare.train()))
    train = before_and_after(rivals)
    row("mobilenetv2, 224 px: training alone", trained / seconds[0, 1:], "bare loop", train[1:], 0.97)

    with open(trainer.export(), "rb") as file:
        folded = Frozen(tf.GraphDef.FromString(file.read()))
    with_batch_norms = Frozen(unfolded(trainer))
    images = bare.batches[0][0]
    alone, theirs = in_turn(5, lambda: folded.speed(images[:1]), lambda: with_batch_norms.speed(images[:1]))
    row(
        f"mobilenetv2 frozen, one image ({1000 / np.median(alone):.1f} ms)",
        alone,
        f"batch norms not folded ({1000 / np.median(theirs):.1f} ms)",
        theirs,
        None if LEGACY else 1 / 0.75,
    )
    predictor, paths = load(trainer.export()), 10 * list_images(path)
    large = np.concatenate(4 * [images])[:PREDICTOR_BATCH]
    asked, batches = in_turn(3, lambda: answers(predictor, paths), lambda: folded.speed(large))
    row("mobilenetv2: predict, files to answers", asked, f"frozen graph, batches of {len(large)}", batches, 0.9)
    many, alone = in_turn(3, lambda: folded.speed(images), lambda: folded.speed(images[:1]))
    row(f"mobilenetv2 frozen, batches of {BATCH}", many, "one image at a time", alone)
    return np.median(train)


class Frozen:
    """A frozen graph in a session."""

    def __init__(self, graph_def):
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
        self.session = tf.Session(graph=graph)

    def speed(self, images):
        return speed(lambda _: self.session.run("output:0", {"Image:0": images}), len(images))


def unfolded(trainer):
    """The frozen learning network, its batch norms in place and told to use the moving statistics."""
    graph_def = trainer.graph.as_graph_def()
    for node in graph_def.node:
        if node.op.startswith("FusedBatchNorm") and "gradients" not in node.name:
            scope = node.name.rsplit("/", 1)[0]
            node.attr["is_training"].b = False
            node.input[3], node.input[4] = f"{scope}/moving_mean/read", f"{scope}/moving_variance/read"
    return tf.graph_util.convert_variables_to_constants(trainer.session, graph_def, ["output"])


if __name__ == "__main__":
    main()
