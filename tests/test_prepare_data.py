import hashlib
import http.server
import io
import os
import tarfile
import threading

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from dataset import read_train_sets
from src.errors import InputError
from src.settings import settings
from utils.commands import prepare as prepare_data
from utils.commands.prepare import CIFAR10_CLASSES, prepare_cifar10, run


def test_digits_are_those_of_scikit_learn(digits):
    images = []
    for part in ("train", "test"):
        for label in os.listdir(os.path.join(digits, part)):
            folder = os.path.join(digits, part, label)
            for name in os.listdir(folder):
                images.append((int(name[:-4]), int(label), cv2.imread(os.path.join(folder, name))))
    images.sort(key=lambda image: image[0])
    expected = load_digits()
    assert [label for _, label, _ in images] == expected.target.tolist()
    for (_, _, image), original in zip(images, expected.images):
        assert np.abs(image / 255.0 - original[:, :, np.newaxis] / 16).max() <= 0.5 / 255
    assert sum(len(files) for _, _, files in os.walk(os.path.join(digits, "train"))) == 1437
    assert sum(len(files) for _, _, files in os.walk(os.path.join(digits, "test"))) == 360


RECORDS = 20  # in each file of the test's archive; 10,000 in the official one


@pytest.fixture
def archive(tmp_path):
    """An archive in the layout of https://www.cs.toronto.edu/~kriz/cifar.html, section "Binary version"."""
    random = np.random.RandomState(0)
    path = tmp_path / "official.tar.gz"
    with tarfile.open(str(path), "w:gz") as members:

        def add(name, content):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))

        add("batches.meta.txt", "\n".join(CIFAR10_CLASSES).encode())
        for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
            records = random.randint(0, 256, (RECORDS, 3073)).astype(np.uint8)
            records[:, 0] = np.arange(RECORDS) % 10
            # A cat of one colour: red 200, green 100, blue 50, ...
            records[3, 1:] = [200] * 1024 + [100] * 1024 + [50] * 1024
            records[3, 1 + 2] = 7  # ... but for the red of its third pixel, in the first row
            add(name, records.tobytes())
        add("../../evil.bin", b"must not be written anywhere")
        add("readme.html", b"")
    return path


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def leftovers(tmp_path):
    return sorted(name for name in os.listdir(str(tmp_path)) if name != "official.tar.gz")


def test_cifar10_from_an_archive(archive, tmp_path):
    path = str(tmp_path / "cifar10png")
    prepare_cifar10(path, archive=str(archive), md5=md5(archive))
    assert leftovers(tmp_path) == ["cifar10png"]
    assert not [name for _, _, names in os.walk(str(tmp_path.parent)) for name in names if name == "evil.bin"]
    assert sorted(os.listdir(path)) == ["test", "train"]
    for part, count in (("train", 10), ("test", 2)):  # 5 files or 1, of 20 images of 10 classes
        assert tuple(sorted(os.listdir(os.path.join(path, part)))) == CIFAR10_CLASSES
        for name in CIFAR10_CLASSES:
            assert len(os.listdir(os.path.join(path, part, name))) == count
    cat = cv2.imread(os.path.join(path, "test", "cat", "00004.png"))
    assert cat.shape == (32, 32, 3)
    assert cat[1, 1].tolist() == [50, 100, 200]
    assert cat[0, 2].tolist() == [50, 100, 7]
    assert read_train_sets(settings(train_path=os.path.join(path, "train"))).train.num_examples == 84


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path on loopback; `cut` is how many bytes of an answer it sends, None for all."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            file = tmp_path / self.path[1:]
            if not file.exists():
                return self.send_error(404)
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: self.server.cut])

        def log_message(self, *arguments):
            pass

    running = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    running.cut = None
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_cifar10_downloaded(archive, tmp_path, server):
    path = str(tmp_path / "cifar10png")
    prepare_cifar10(path, url=f"http://127.0.0.1:{server.server_port}/official.tar.gz", md5=md5(archive))
    assert sorted(os.listdir(path)) == ["test", "train"]
    assert leftovers(tmp_path) == ["cifar10png"]


def test_a_download_that_fails(archive, tmp_path, server):
    path, url = str(tmp_path / "cifar10png"), f"http://127.0.0.1:{server.server_port}/"
    with pytest.raises(InputError, match="Not Found.*--archive"):
        prepare_cifar10(path, url=f"{url}elsewhere")
    server.cut = 1000
    with pytest.raises(InputError, match="ended after 1000 of"):
        prepare_cifar10(path, url=f"{url}official.tar.gz", md5=md5(archive))
    with pytest.raises(InputError, match="--archive"):
        prepare_cifar10(path, url="http://127.0.0.1:9/nobody-listens", md5=md5(archive))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [lambda content: content[:-100], lambda content: b"", lambda content: content[:500] + b"x" + content[501:]],
)
def test_an_archive_cut_short_or_altered(archive, tmp_path, change):
    expected = md5(archive)
    archive.write_bytes(change(archive.read_bytes()))
    with pytest.raises(InputError, match="official.tar.gz: found MD5"):
        prepare_cifar10(str(tmp_path / "cifar10png"), archive=str(archive), md5=expected)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing_that_passes_for_a_data_set(archive, tmp_path, monkeypatch, stop):
    written = []

    def write_some(*arguments):
        written.append(arguments)
        if len(written) > 30:
            raise stop
        write_image(*arguments)

    write_image = prepare_data.write_image
    monkeypatch.setattr(prepare_data, "write_image", write_some)
    with pytest.raises(type(stop) if isinstance(stop, OSError) else stop):
        prepare_cifar10(str(tmp_path / "cifar10png"), archive=str(archive), md5=md5(archive))
    assert leftovers(tmp_path) == []


def test_another_process_was_faster(archive, tmp_path, monkeypatch):
    path = str(tmp_path / "cifar10png")

    def be_slow(*arguments):
        if not os.path.exists(path):
            os.makedirs(f"{path}/train")
        write_image(*arguments)

    write_image = prepare_data.write_image
    monkeypatch.setattr(prepare_data, "write_image", be_slow)
    with pytest.raises(InputError, match="cifar10png: found one that was not there"):
        prepare_cifar10(path, archive=str(archive), md5=md5(archive))
    assert leftovers(tmp_path) == ["cifar10png"] and os.listdir(path) == ["train"]


def test_a_data_set_that_is_there_is_left_alone(in_tmp_path, capsys):
    run(None, {}, "digits")
    os.remove("data/digitspng/train/0/00000.png")
    run(None, {}, "digits")
    assert "already there" in capsys.readouterr().out
    assert not os.path.exists("data/digitspng/train/0/00000.png")


def test_a_folder_of_something_else_is_not_touched(in_tmp_path):
    os.makedirs("data/digitspng/mine")
    with pytest.raises(InputError, match="data/digitspng"):
        run(None, {}, "digits")
    assert os.listdir("data/digitspng") == ["mine"]


def test_an_archive_without_the_expected_files(tmp_path):
    import hashlib
    import tarfile

    with tarfile.open(str(tmp_path / "archive"), "w:gz"):
        pass
    md5 = hashlib.md5((tmp_path / "archive").read_bytes()).hexdigest()
    with pytest.raises(InputError, match="found no images for train, expected CIFAR-10's binary archive"):
        prepare_cifar10(str(tmp_path / "cifar"), archive=str(tmp_path / "archive"), md5=md5)
    assert os.listdir(str(tmp_path)) == ["archive"]
