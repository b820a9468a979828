"""What tests/bench/benchmark.py compares: each contender runs in a process of its own, a round whenever it is told to.

    python tests/bench/benchmark_cases.py NAME '{"argument": value}'

reads a line from standard input, measures, and writes a line of JSON, {what: speed}, again and again. So contenders
take turns, each with kernels, threads and memory of its own.
"""

import builtins
import contextlib
import io
import json
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

BATCH = 32
CLASSES = 10
EPOCHS = 10**6  # as many as the benchmark asks for
SECONDS = 1.0  # of a round of batches
TALK = sys.stdout


def tell(**result):
    """Give the result of a round, and wait for the next."""
    result["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    print(json.dumps(result), file=TALK, flush=True)
    if not sys.stdin.readline():
        os._exit(0)


def trainer(**given):
    """Epochs of the Trainer: images/s of training alone, and of all."""
    from trainer import Trainer

    class Turns(Trainer):
        def _train_epoch(self, *arguments):
            start = time.monotonic()
            super()._train_epoch(*arguments)
            seconds = time.monotonic() - start
            train = self.data.train.num_examples // BATCH * BATCH
            seen = train + self.data.valid.num_examples
            tell(train=train / (self.trained - start), epoch=seen / seconds)

        def evaluate(self, data):
            self.trained = time.monotonic()
            return super().evaluate(data)

    ours = Turns(**given)
    tell()
    ours.optimize(EPOCHS)


def fixed_cost(**given):
    """The seconds of a call of optimize(1), less its epoch."""
    from trainer import Trainer

    class Timed(Trainer):
        def _train_epoch(self, *arguments):
            start = time.monotonic()
            super()._train_epoch(*arguments)
            self.seconds = time.monotonic() - start

    ours = Timed(**given)
    tell()
    while True:
        start = time.monotonic()
        ours.optimize(1)
        tell(seconds=time.monotonic() - start - ours.seconds)


def bare(**given):
    """session.run in a loop over the same graph, with all images of an epoch in memory: no program can be faster."""
    from trainer import Trainer

    ours = Trainer(**given)
    train, valid = in_memory(ours.data.train.epoch(BATCH)), in_memory(ours.data.valid.batches(100))
    tell()
    while True:
        start = time.monotonic()
        for images, labels in train:
            ours.session.run([ours.optimizer, ours.cost, ours.accuracy], {ours.x: images, ours.y_true: labels})
        middle = time.monotonic()
        for images, labels in valid:
            ours.session.run(ours.inference, {ours.x: images, ours.y_true: labels})
        trained, seen = count(train), count(train) + count(valid)
        tell(train=trained / (middle - start), epoch=seen / (time.monotonic() - start))


def in_memory(batches):
    return [(np.array(batch.images), np.array(batch.labels)) for batch in batches]


def count(batches):
    return sum(len(images) for images, _ in batches)


def eager(model_arch, **given):
    """The same network and optimizer in PyTorch, with the images of the first steps in memory."""
    import torch

    from dataset import read_train_sets
    from src.settings import settings

    torch.set_num_threads(os.cpu_count())
    data = read_train_sets(settings(model_arch=model_arch, **given)).train
    layout = torch.channels_last if model_arch == "mobilenetv2" else torch.contiguous_format
    net = (torch_mobilenetv2 if model_arch == "mobilenetv2" else torch_lenet5)(torch.nn).to(memory_format=layout)
    batches = [
        (torch.tensor(images.transpose(0, 3, 1, 2)).contiguous(memory_format=layout), torch.tensor(labels.argmax(1)))
        for images, labels in in_memory(data.epoch(BATCH))
    ]
    adam = torch.optim.Adam(net.parameters(), lr=0.01, eps=0.01)
    tell()
    while True:
        start = time.monotonic()
        for images, labels in batches:
            adam.zero_grad()
            logits = net(images)
            loss = torch.nn.functional.cross_entropy(logits, labels)
            loss.backward()
            adam.step()
            loss.item(), (logits.argmax(1) == labels).float().mean().item()
        tell(train=count(batches) / (time.monotonic() - start))


def torch_lenet5(nn):
    convolutions = [nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    dense = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES)]
    return nn.Sequential(*convolutions, nn.Flatten(), *dense)


def torch_mobilenetv2(nn):
    from models.mobilenetv2 import BOTTLENECKS, FIRST_DEPTH, LAST_DEPTH, STRIDES

    def convolution(n, depth, size, stride=1, groups=1, relu=True):
        layers = [nn.Conv2d(n, depth, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(depth)]
        return layers + [nn.ReLU6(inplace=True)] * relu

    class Bottleneck(nn.Module):
        def __init__(self, n, t, depth, stride):
            super().__init__()
            layers = convolution(n, t * n, 1) if t > 1 else []
            layers += convolution(t * n, t * n, 3, stride, t * n) + convolution(t * n, depth, 1, relu=False)
            self.layers, self.shortcut = nn.Sequential(*layers), stride == 1 and n == depth

        def forward(self, x):
            return x + self.layers(x) if self.shortcut else self.layers(x)

    layers, n = convolution(3, FIRST_DEPTH, 3, 2), FIRST_DEPTH
    for (t, c, times), s in zip(BOTTLENECKS, STRIDES["paper"][1]):
        for i in range(times):
            layers.append(Bottleneck(n, t, c, s if i == 0 else 1))
            n = c
    layers += convolution(n, LAST_DEPTH, 1) + [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(LAST_DEPTH, CLASSES)]
    return nn.Sequential(*layers)


def predict(graph, folder):
    """The frozen graph on every image in a folder, from files to probabilities, as `python run.py predict` does it."""
    from utils.images.image_folders import list_images
    from utils.inference.predictor import Predictor

    predictor, paths = Predictor(graph), list_images(folder)[0]
    tell()
    while True:
        start = time.monotonic()
        found = len(list(predictor.classify(paths)))
        tell(images=found / (time.monotonic() - start))


def frozen(graph, batches):
    """The frozen graph on batches of these sizes: {size: images/s}.

    All are in memory already, but too many to stay in the processor's cache, where no program finds its images.
    """
    from src.tf1 import open_session, tf
    from utils.inference.graph_def import read_graph

    with tf.Graph().as_default():
        graph_def, _ = read_graph(graph)
        image, output = tf.import_graph_def(graph_def, name="", return_elements=["Image:0", "output:0"])
        session = open_session("cpu")
    shape = image.shape.as_list()[1:]
    many = {str(size): [np.full([size] + shape, 0.5, np.float32) for _ in range(16)] for size in batches}
    tell()
    while True:
        tell(**{size: speed(session, output, image, images) for size, images in many.items()})


def speed(session, output, image, many):
    """images/s of one batch after another."""
    start, steps = time.monotonic(), 0
    while time.monotonic() - start < SECONDS or steps < len(many):
        session.run(output, {image: many[steps % len(many)]})
        steps += 1
    return steps * len(many[0]) / (time.monotonic() - start)


def loader(folder, img_size, cache_mb=0, slow_ms=0):
    """The batches of a DataSet, from a drive that takes so many milliseconds to open a file."""
    data, _, _ = sample(folder, img_size, cache_mb)
    opened = open

    def slowly(*arguments, **options):
        time.sleep(slow_ms / 1000)
        return opened(*arguments, **options)

    builtins.open = slowly if slow_ms else opened
    tell()
    while True:
        tell(images=through(data.batches(BATCH)))


def find(folder):
    """What training does with the files before it reads them."""
    from dataset import read_train_sets
    from src.settings import settings

    config = settings(train_path=folder)
    tell()
    while True:
        start = time.monotonic()
        data = read_train_sets(config)
        tell(images=(data.train.num_examples + data.valid.num_examples) / (time.monotonic() - start))


def sample(folder, img_size, cache_mb=0):
    """(DataSet, paths, labels) of images drawn from a folder, fewer if they are large."""
    from dataset import DataSet
    from src.settings import settings
    from utils.images.image_folders import find_images
    from utils.images.loader import Cache
    from utils.images.preprocess import Preprocess

    config = settings(train_path=folder, img_size=img_size)
    paths, labels, *_ = find_images("train_path", folder, config.classes)
    chosen = np.random.RandomState(0).permutation(len(paths))[: 8000 if img_size == 32 else 2000]
    paths, labels = [paths[index] for index in chosen], labels[chosen]
    return DataSet(paths, labels, config.classes, Preprocess.of(config), Cache(cache_mb)), paths, labels


def resizing(how, img_size):
    """A function that reads and resizes a photo as people do it with another library."""
    import cv2
    from PIL import Image

    def opencv(path):
        return cv2.resize(cv2.imread(path), (img_size, img_size), interpolation=cv2.INTER_AREA)

    def pillow(path):
        return np.asarray(Image.open(path).convert("RGB").resize((img_size, img_size), Image.BILINEAR))

    def draft(path):
        image = Image.open(path)
        image.draft("RGB", (img_size, img_size))
        return np.asarray(image.resize((img_size, img_size), Image.BILINEAR))

    cv2.setNumThreads(1)
    return {"opencv": opencv, "pillow": pillow, "draft": draft}[how]


def reader(folder, img_size, how):
    """Another library's calls, in as many threads as there are cores."""
    data, paths, _ = sample(folder, img_size)
    read, normalize = resizing(how, img_size), data.preprocess.normalize
    tell()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while True:
            tell(images=through([images] for images in pool.map(lambda path: normalize(read(path)[np.newaxis]), paths)))


def through(batches):
    """images/s of going through batches of (images, ...)."""
    start = time.monotonic()
    images = sum(len(batch[0]) for batch in batches)
    return images / (time.monotonic() - start)


def tf_data(folder, img_size):
    """The same work by TensorFlow's own pipeline."""
    from src.tf1 import tf

    _, paths, labels = sample(folder, img_size)

    def read(path, label):
        image = tf.image.decode_png(tf.read_file(path), 3)[tf.newaxis]
        image = tf.image.resize_bilinear(image, [img_size, img_size])[0]
        return (image / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], tf.one_hot(label, CLASSES)

    def batches():
        with tf.Graph().as_default(), tf.Session() as session:
            data = tf.data.Dataset.from_tensor_slices((paths, labels)).map(read, os.cpu_count()).batch(BATCH)
            batch = tf.data.make_one_shot_iterator(data.prefetch(2)).get_next()
            with contextlib.suppress(tf.errors.OutOfRangeError):
                while True:
                    yield session.run(batch)

    tell()
    while True:
        tell(images=through(batches()))


def data_loader(folder, img_size, how=None):
    """The same work by PyTorch's DataLoader, which reads in processes; how: with another library instead of our own."""
    import torch

    data, paths, labels = sample(folder, img_size)
    preprocess = data.preprocess
    load = resizing(how, img_size) if how else preprocess.load

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            return preprocess.normalize(load(paths[index])[np.newaxis])[0], labels[index]

    tell()
    while True:
        tell(images=through(torch.utils.data.DataLoader(Images(), BATCH, num_workers=os.cpu_count())))


if __name__ == "__main__":
    sys.stdout = io.StringIO()  # the lines of the Trainer are not for the benchmark
    globals()[sys.argv[1]](**json.loads(sys.argv[2]))
