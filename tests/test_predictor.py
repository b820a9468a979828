"""Predicting from Python: Predictor, and Trainer.predict and evaluate; compared with OpenCV's own runtime."""

import io
import json
import os
import shutil
import threading

import cv2
import numpy as np
import pytest
from PIL import Image

from src.errors import InputError, OutOfMemoryError
from tests.conftest import accuracy_in_opencv, make_folders, run_opencv
from trainer import Trainer
from utils.inference.predictor import Predictor

COLOURS = np.random.RandomState(3).randint(0, 256, (40, 50, 3)).astype(np.uint8)  # blue, green, red


@pytest.fixture(scope="module")
def graph(trained):
    return str(trained / "weights" / "lenet5" / "lenet5.pb")


@pytest.fixture(scope="module")
def predictor(graph):
    return Predictor(graph)


@pytest.fixture(scope="module")
def sevens(digits):
    """Paths of three test images."""
    folder = os.path.join(digits, "test", "7")
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))[:3]]


def expected(graph, pixels):
    """The classes of a graph of 32 px with their probabilities, the most probable first, by OpenCV."""
    image = (cv2.resize(pixels, (32, 32)) / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    logits = run_opencv(graph, image[np.newaxis].astype(np.float32))[0].astype(float)
    shares = np.exp(logits) / np.exp(logits).sum()
    return [(str(index), shares[index]) for index in np.argsort(-shares)]


def assert_same(found, wanted):
    assert [name for name, _ in found] == [name for name, _ in wanted]
    np.testing.assert_allclose([share for _, share in found], [share for _, share in wanted], atol=1e-5)


def test_a_path(predictor, graph, sevens):
    found = predictor(sevens[0])
    assert_same(found, expected(graph, cv2.imread(sevens[0])))
    assert found[0][0] == "7" and type(found[0][1]) is float and len(found) == 10


def test_a_list_and_a_folder(predictor, graph, sevens, tmp_path):
    wanted = [expected(graph, cv2.imread(path)) for path in sevens]
    for found, single in zip(predictor(sevens), wanted):
        assert_same(found, single)
    for path in sevens:
        shutil.copy(path, str(tmp_path))
    found = predictor(tmp_path)  # a pathlib.Path
    assert list(found) == [str(tmp_path / os.path.basename(path)) for path in sevens]
    for classes, single in zip(found.values(), wanted):
        assert_same(classes, single)
    assert predictor([]) == [] and predictor.probabilities([]).shape == (0, 10)


def test_all_threads_read_even_a_few_images(predictor, sevens, monkeypatch):
    """Each of three threads waits until all of them read."""
    monkeypatch.setattr("utils.inference.predictor.THREADS", 3)
    monkeypatch.setattr("utils.images.loader.THREADS", 3)
    together, read = threading.Barrier(3, timeout=30), predictor.preprocess.read

    def read_together(path):
        together.wait()
        return read(path)

    expected = predictor.probabilities(sevens)
    monkeypatch.setattr(predictor.preprocess, "read", read_together)
    np.testing.assert_allclose(predictor.probabilities(sevens), expected, rtol=1e-5)


def test_arrays_and_pillow_images_of_either_channel_order(predictor, graph):
    wanted = expected(graph, COLOURS)
    assert_same(predictor(COLOURS), wanted)
    assert_same(predictor(COLOURS[:, :, ::-1], rgb=True), wanted)
    assert_same(predictor(Image.fromarray(np.ascontiguousarray(COLOURS[:, :, ::-1]))), wanted)
    transparent = np.dstack([COLOURS, np.zeros((40, 50), np.uint8)])
    for found in (*predictor([COLOURS, transparent]), *predictor(np.stack([COLOURS, COLOURS]))):
        assert_same(found, wanted)
    assert_same(predictor(np.dstack([COLOURS[:, :, ::-1], COLOURS[:, :, :1]]), rgb=True), wanted)
    grey = expected(graph, np.repeat(COLOURS[:, :, :1], 3, axis=2))
    for image in (COLOURS[:, :, 0], COLOURS[:, :, :1], Image.fromarray(COLOURS[:, :, 0])):
        assert_same(predictor(image), grey)


def test_a_pillow_image_is_rotated_as_its_exif_says(predictor, graph):
    image = Image.fromarray(np.ascontiguousarray(COLOURS[:, :, ::-1]))
    exif = image.getexif()
    exif[0x0112] = 6  # the top of the photo is at the right
    image.info["exif"] = exif.tobytes()
    assert_same(predictor(image), expected(graph, np.ascontiguousarray(np.rot90(COLOURS, -1))))


def test_probabilities_are_in_the_order_of_the_classes(predictor, graph, sevens):
    wanted = [dict(expected(graph, cv2.imread(path))) for path in sevens]
    wanted = [[row[name] for name in predictor.classes] for row in wanted]
    found = predictor.probabilities(sevens)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(predictor.probabilities(sevens[1]), wanted[1:2], atol=1e-5)


@pytest.mark.parametrize(
    "images, message",
    [
        ("nowhere.png", "^image nowhere.png: cannot be read"),
        (COLOURS / 255.0, r"^image 0: found an array of float64 and shape \[40, 50, 3\], expected uint8 levels"),
        ([COLOURS, COLOURS[:, :, :2]], r"^image 1: found an array of uint8 and shape \[40, 50, 2\], expected"),
        (COLOURS[:0], r"^image 0: found an array of uint8 and shape \[0, 50, 3\], expected"),
        ([COLOURS, None], "^image 1: found an object of type NoneType, expected a path, an array or a Pillow image"),
        (Image.new("F", (9, 9)), "^image 0: found a Pillow image of mode F, expected 8 bits a channel"),
        (None, "^image 0: found an object of type NoneType, expected a path, an array or a Pillow image"),  # imread's
        (io.BytesIO(b"x"), "^image 0: found an object of type BytesIO, expected a path"),
        ("", "^image 0: found an empty path, expected that of an image file"),
    ],
)
def test_what_is_no_image_raises_input_error(predictor, images, message):
    with pytest.raises(InputError, match=message):
        predictor(images)


def test_files_that_are_no_images_raise_input_error(predictor, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found no images, expected files ending in"):
        predictor(tmp_path / "empty")
    Image.fromarray(COLOURS).save(str(tmp_path / "cut.png"))
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="^image 0: found a Pillow image that cannot be read"):
        predictor(Image.open(str(tmp_path / "cut.png")))


def test_repr_says_what_it_is(predictor, graph, trainer):
    assert repr(predictor) == f"<Predictor of {graph}: 10 classes (0, 1, 2, 3, 4, ...), images of 32 px>"
    assert repr(trainer.data.train) == "<DataSet of 34 images in 2 classes>"
    counts = "34 training and 6 validation images"
    assert repr(trainer) == f"<Trainer of lenet5: 0 epochs, 0 steps; not started; {counts}>"


def test_a_trainer_predicts_with_its_weights_or_with_those_of_the_best_epoch(trainer):
    trainer.optimize(2)
    trainer.session.run(trainer.optimizer, {trainer.x: np.ones((8, 16, 16, 3)), trainer.y_true: np.eye(2)[[0] * 8]})
    for best in (False, True):
        found = trainer.predict(COLOURS, best=best)
        assert_same(found, Predictor(trainer.export(last=not best))(COLOURS))
    assert trainer.predict(COLOURS) != found


def test_a_trainer_predicts_with_weights_that_were_assigned(trainer):
    before = trainer.predict(COLOURS)
    (bias,) = [variable for variable in trainer.variables if variable.op.name.endswith("bias")][-1:]
    bias.load([0.0, 50.0], trainer.session)
    assert before != trainer.predict(COLOURS) and trainer.predict(COLOURS)[0] == ("dog", pytest.approx(1))


def test_evaluate_without_an_argument_uses_the_test_images(digits, in_tmp_path):
    trainer = Trainer(train_path=f"{digits}/train", test_path=f"{digits}/test", num_epoch=2)
    trainer.optimize()
    loss, accuracy = trainer.evaluate()
    assert trainer.data.test.num_examples == 360 and trainer.data.test is trainer.data.test
    assert accuracy == pytest.approx(accuracy_in_opencv(trainer.export(last=True), f"{digits}/test"))


@pytest.mark.parametrize(
    "name, advice",
    [
        ("lr", r"use a setting, such as Trainer\(lr=0.001\)"),
        ("batch_size", r"use a setting, such as Trainer\(lr=0.001\)"),
        ("train_batch_size", r"use a setting, such as Trainer\(lr=0.001\)"),
        ("optimizer", "the graph is finalized; utils/training/optimizer.py builds the optimizer"),
        ("learning_rate", "the graph is finalized"),
        ("step", "it follows from the training so far"),
        ("run_folder", "settings such as checkpoint_dir determine it"),
    ],
)
def test_what_would_be_assigned_in_vain_cannot_be(trainer, name, advice):
    before = getattr(trainer, name)
    with pytest.raises(AttributeError, match=f"^Trainer.{name} cannot be assigned; {advice}"):
        setattr(trainer, name, 1)
    assert getattr(trainer, name) is before


def test_settings_in_use_cannot_be_assigned(trainer):
    with pytest.raises(
        AttributeError, match=r"^setting lr cannot be assigned after it was used; Trainer\(lr=...\) sets"
    ):
        trainer.config.lr = 0.5
    assert trainer.config.lr == 0.01


def test_without_test_images_the_validation_images_are_used(trainer, capsys):
    assert trainer.evaluate() == trainer.evaluate(trainer.data.valid)
    where = f"the validation images of {trainer.config.train_path}"
    error = capsys.readouterr().err
    found = "note: setting test_path: found no folder data/cifar10png/test"
    assert error == f"{found}; so these are {where}, by which the best epoch was selected\n"
    assert sorted(trainer.data.test.paths) == sorted(trainer.data.valid.paths)


def test_validation_images_are_those_of_the_run_or_none(trainer, run_here, folders):
    trainer.optimize(1)
    trainer.export()
    here = os.getcwd()
    done = run_here("evaluate", cwd=here)
    assert done.returncode == 0 and "so these are the validation images of" in done.stderr
    assert f"lenet5.pb on the validation images of {trainer.config.train_path}\n6 images: " in done.stdout
    assert f"accuracy {trainer.val_acc:.4f}" in done.stdout
    done = run_here("evaluate", "--test_path", "elsewhere", cwd=here)
    assert done.returncode == 2 and done.stderr.startswith("error: setting test_path: found no folder elsewhere, ")
    make_folders("more", {"cat": 1})
    os.rename("more/cat/000.png", os.path.join(trainer.config.train_path, "cat", "new.png"))
    done = run_here("evaluate", cwd=here)  # the split would be another one
    assert done.returncode == 2 and done.stderr.startswith("error: setting test_path: found no folder data/")


def test_a_pillow_image_of_a_file_is_read_as_often_as_asked(predictor, tmp_path):
    Image.fromarray(COLOURS).save(str(tmp_path / "photo.tif"))
    image = Image.open(str(tmp_path / "photo.tif"))
    assert predictor(image) == predictor(image)


def test_an_array_too_large_for_the_memory_raises_out_of_memory(predictor, monkeypatch):
    def too_large(*arguments, **options):
        raise MemoryError("Unable to allocate 10 GiB")

    monkeypatch.setattr("utils.images.pixels.np.repeat", too_large)
    with pytest.raises(OutOfMemoryError, match="^image 0: found too little memory"):
        predictor(COLOURS[:, :, 0])


@pytest.mark.parametrize("path", ["a\0b.png", "\ud800.png"])
def test_what_can_be_no_path_raises_input_error(predictor, path):
    with pytest.raises(InputError, match="^image "):
        predictor(path)


def test_a_graph_that_does_not_know_its_images_is_refused_in_a_line(trainer, run_here):
    path = trainer.export(last=True)
    with open(f"{path[:-3]}.json") as file:
        metadata = json.load(file)
    del metadata["run"]["train_path"]
    with open(f"{path[:-3]}.json", "w") as file:
        json.dump(metadata, file)
    done = run_here("evaluate", cwd=os.getcwd())
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: setting test_path: found no folder data/cifar10png/test")


def test_evaluate_takes_a_data_set_alone(trainer):
    with pytest.raises(InputError, match="^evaluate: found 'data', expected a DataSet, such as T.data.valid, or none"):
        trainer.evaluate("data")


def test_a_closed_trainer_says_so(trainer):
    trainer.close()
    for use in (trainer.optimize, trainer.evaluate, trainer.save, lambda: trainer.predict(COLOURS)):
        with pytest.raises(InputError, match="^Trainer: found a closed one, expected an open one"):
            use()
    assert repr(trainer).endswith("; closed>")


def test_folders_with_one_graph_or_of_a_run_stand_for_it(predictor, graph, trained, run_here):
    assert repr(Predictor(os.path.dirname(graph))) == repr(predictor)
    (run_folder,) = [entry.path for entry in os.scandir(str(trained / "checkpoints" / "lenet5")) if entry.is_dir()]
    done = run_here("evaluate", "--checkpoint", run_folder, cwd=trained)
    assert done.returncode == 0 and f"note: {run_folder}/lenet5-" in done.stderr


def test_help_describes_the_attributes_of_parts():
    assert Trainer.optimizer.__doc__ == "train_graph.optimizer; read-only"
