"""Files of Keras as people have them: what is found in them, against the Keras that wrote them."""

import json
import os
import re
import shutil
import tracemalloc
import zipfile

import cv2
import h5py
import numpy as np
import pytest
import sklearn.datasets

import run
from models.mobilenetv2 import MobileNetv2
from src.errors import InputError
from src.tf1 import IS_1_14, tf
from tests.conftest import REPOSITORY, assert_images_differ_alike, make_folders, python
from utils.checkpoints import keras_layers
from utils.checkpoints.keras_config import input_settings
from utils.checkpoints.pretrained import inherit_settings, load_pretrained
from utils.images.preprocess import Preprocess

HELPER = os.path.join(REPOSITORY, "tests", "helpers", "keras_models.py")
CLASSES = list("abcde")
NETWORKS = ("flat", "nested", "sequential")
# What of a file is read, by its ending; of the last three, all.
BARE = ["-keras2.h5", "-3.0.weights.h5"] + ([] if IS_1_14 else [".weights.h5"])
WITH_CONFIG = [".h5", "-3.0.keras"] + ([] if IS_1_14 else [".keras"])


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """A folder with the files of keras_models.py, photos.npz, and class folders `train`."""
    folder = tmp_path_factory.mktemp("keras")
    photos = os.path.join(os.path.dirname(sklearn.datasets.__file__), "images")
    images = []
    for index in range(6):
        photo = cv2.imread(os.path.join(photos, ("china.jpg", "flower.jpg")[index % 2]), cv2.IMREAD_REDUCED_COLOR_4)
        images.append(cv2.cvtColor(photo[10 * index :][:32, 20 * index :][:, :32], cv2.COLOR_BGR2RGB))
    np.savez(str(folder / "photos.npz"), images=np.array(images))
    make_folders(str(folder / "train"), dict.fromkeys(CLASSES, 2), 32)
    done = python(HELPER, "photos.npz", str(folder), cwd=folder, timeout=900)  # TensorFlow 1.14 takes a minute or more
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def network():
    """A session with the MobileNetV2 of width 0.35 for 32 px and five classes: (session, model, its variables)."""
    with tf.Graph().as_default(), tf.Session() as session:
        model = MobileNetv2([None, 32, 32, 3], False, 0.35, len(CLASSES))
        yield session, model, tf.global_variables()


def load(network, path, **overrides):
    """The settings of a run with these pretrained weights, which are loaded into the network."""
    session, _, variables = network
    session.run(tf.variables_initializer(variables))
    given = dict({"model_arch": "mobilenetv2", "classes": CLASSES, "pretrained": str(path)}, **overrides)
    config = inherit_settings(given)
    load_pretrained(session, variables, config)
    return config


@pytest.mark.parametrize("ending", BARE + WITH_CONFIG)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_answers_as_keras_does(keras, network, capsys, name, ending):
    path = str(keras / f"{name}{ending}")
    scaled = name == "sequential" and not IS_1_14  # it divides by 255; the others have, or are given, x / 127.5 - 1
    mean_std = {"image_normalize_mean": [0.0] * 3, "image_normalize_std": [1.0] * 3} if scaled else {}
    config = load(network, path, **({} if ending in WITH_CONFIG else dict(mean_std, img_size=32)))
    output, errors = capsys.readouterr()
    around = {"flat": "", "nested": " inside a Functional model", "sequential": " inside a Sequential model"}[name]
    what = f" for 32 px{around}"
    if ending in BARE:
        what = " inside another network" if around else ""
    expected = f"pretrained {path}: MobileNetV2 of width 0.35{what}, head of 5 classes, loaded: as many are trained"
    assert output.startswith(expected) and f"weights of {path}: loaded 262 of 262 variables\n" in output
    assert ("alone would" in errors) == bool(scaled and ending in BARE)  # only what was overridden gives a note
    assert (config.width, config.img_size, config.channel_order) == (0.35, 32, "rgb")
    assert config.image_normalize_std == ([1, 1, 1] if scaled else [0.5, 0.5, 0.5])

    session, model, _ = network
    photos = np.load(str(keras / "photos.npz"))["images"][..., ::-1]
    images = Preprocess.of(config).normalize(np.ascontiguousarray(photos))
    found = session.run(model.getOutput(), {model.getInput(): images})
    logits = np.load(str(keras / f"{name}.npz"))["logits"]
    assert np.abs(found - logits).max() <= 1e-4 * np.abs(logits).max()
    assert_images_differ_alike(found, logits)


def test_a_head_of_other_classes_is_left_out(keras, network, capsys):
    with tf.Graph().as_default(), tf.Session() as session:
        model = MobileNetv2([None, 32, 32, 3], False, 0.35, 2)
        load((session, model, tf.global_variables()), keras / "nested.h5", classes=["a", "b"])
    output = capsys.readouterr().out
    assert "inside a Functional model, head of 5 classes, not loaded: 2 are trained\n" in output
    assert "loaded 260 of 262 variables, all but logits/kernel, logits/bias\n" in output


def edited(source, path, edit):
    """A copy of an HDF5 file, changed by edit(file)."""
    shutil.copy(str(source), path)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def replace(name, change):
    """An edit that changes an array."""

    def edit(file):
        value = change(file[name][()])
        del file[name]
        file[name] = value

    return edit


CONV1 = "Conv1/Conv1/kernel:0"
BASE = "mobilenetv2_0.35_32"


def append_name(group, attribute, name):
    group.attrs[attribute] = [other.encode() for other in keras_layers.read_names(group, attribute)] + [name.encode()]


def with_hidden_layer(file):
    append_name(file, "layer_names", "hidden")
    hidden = file.create_group("hidden")
    hidden.attrs["weight_names"] = [b"hidden/kernel:0"]
    hidden["hidden/kernel:0"] = np.zeros((5, 5), np.float32)


def test_layers_that_this_network_has_not_are_listed(keras, network, in_tmp_path, capsys):
    path = edited(keras / "nested-keras2.h5", "hidden.h5", with_hidden_layer)
    load(network, path, img_size=32)
    assert re.search("inside another network, other layers not loaded: dense[_0-9]*, hidden\n", capsys.readouterr().out)


def test_the_number_in_the_names_of_a_second_network_of_a_process_is_ignored(keras, network, in_tmp_path):
    """As Keras 2 names weights: the layer stays Conv1, its kernel is Conv1_1/kernel:0."""

    def number(file):
        group = file[[name for name in file if name.startswith("mobilenetv2")][0]]
        names = keras_layers.read_names(group, "weight_names")
        for name in {name.split("/")[0] for name in names}:
            group.move(name, f"{name}_1")
        group.attrs["weight_names"] = [name.replace("/", "_1/").encode() for name in names]

    load(network, edited(keras / "nested-keras2.h5", "second.h5", number), img_size=32)
    found = network[0].run("last/kernel:0")
    load(network, keras / "nested-keras2.h5", img_size=32)
    assert np.array_equal(found, network[0].run("last/kernel:0"))


def test_half_precision_is_converted(keras, network, in_tmp_path, capsys):
    path = edited(keras / "flat-keras2.h5", "half.h5", replace(CONV1, np.float16))
    load(network, path, img_size=32)
    assert "width 0.35, in float16, which is converted to float32, head" in capsys.readouterr().out
    with h5py.File(path, "r") as file:
        assert np.array_equal(network[0].run("first/kernel:0"), file[CONV1][()].astype(np.float32))


def twin(file):
    (base,) = [name for name in file if name.startswith("mobilenetv2")]
    file.copy(base, "twin")
    append_name(file, "layer_names", "twin")


def cut_kernel(file):
    file["Conv_1"].attrs["weight_names"] = []


@pytest.mark.parametrize("source, edit, expected", [
    ("other.h5", None, "with mobilenet_0.25_32, expected one MobileNetV2 from Keras"),
    ("nested-keras2.h5", twin, f"with 2 MobileNetV2 ({BASE}, twin), expected one MobileNetV2 from Keras"),
    ("flat-keras2.h5", cut_kernel, "without last/kernel, expected all weights of a MobileNetV2"),
    ("flat-keras2.h5", replace(CONV1, np.int8), "with int8 numbers in first/kernel, expected float32 or float16, not"),
    ("flat-keras2.h5", replace(CONV1, lambda kernel: kernel[:, :, :1]),
     "whose first kernel has 1 input channel, expected 3, as in setting numchannels"),
    ("flat-keras2.h5", replace(CONV1, lambda kernel: kernel[0, 0, 0]), "with a first kernel of shape [16], expected 4"),
    ("flat-keras2.h5", replace(CONV1, lambda kernel: kernel[..., :9]), "with a MobileNetV2 of 9, 8, 8, 8, 16,"),
])  # fmt: skip
def test_files_with_other_weights(keras, in_tmp_path, capsys, source, edit, expected):
    edited(keras / source, "bad.h5", edit or (lambda file: None))
    assert run.main(arguments(keras, "bad.h5")) == 2
    errors = capsys.readouterr().err
    found = errors.replace(f"{BASE}_1", BASE)  # a process of TensorFlow 1.14 numbers its networks
    assert re.match("error: setting pretrained: found bad.h5,? ", found) and expected in found
    assert errors.count("\n") == 1


def arguments(keras, path):
    given = {"model_arch": "mobilenetv2", "train_path": str(keras / "train"), "img_size": "32", "pretrained": path}
    return [part for name, value in given.items() for part in (f"--{name}", value)]


def test_the_width_to_set_is_named(keras, in_tmp_path, capsys):
    path = str(keras / "nested.h5")
    assert run.main(arguments(keras, path) + ["--width", "1.4"]) == 2
    assert capsys.readouterr().err == f"error: setting width: found 1.4, expected 0.35, that of {path}\n"


def test_a_size_other_than_that_of_the_file_gives_a_note(keras, capsys):
    path = str(keras / "nested.h5")
    inherit_settings({"model_arch": "mobilenetv2", "pretrained": path, "img_size": 64, "classes": CLASSES})
    assert capsys.readouterr().err == f"note: setting img_size is 64; {path} alone would set it to 32\n"


def archive(members, path="bad.keras", compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)


def refusal(path="bad.keras"):
    with pytest.raises(InputError) as caught:
        inherit_settings({"model_arch": "mobilenetv2", "pretrained": path, "classes": CLASSES})
    assert "\n" not in str(caught.value)
    return str(caught.value)


CONFIG = '{"class_name": "Sequential", "config": {"layers": []}}'


@pytest.mark.parametrize("members, expected", [
    ({"config.json": CONFIG}, "there is no model.weights.h5 in it"),
    ({"model.weights.h5": b""}, "there is no config.json in it"),
    ({"config.json": CONFIG, "model.weights.h5": b"no HDF5"}, "expected a readable file from Keras"),
    ({"config.json": "{", "model.weights.h5": b""}, "expected a readable file from Keras"),
    ({"config.json": " " * 2**25}, "config.json: 33554432 bytes, the most is 16777216"),
])  # fmt: skip
def test_archives_that_cannot_be_used(in_tmp_path, members, expected):
    archive(members)
    message = refusal()
    assert message.startswith("setting pretrained: found bad.keras, expected a readable file") and expected in message


def test_an_archive_expands_to_no_more_than_it_declares(in_tmp_path):
    """Its directory says 64 bytes, its content is 256 MB of zeros; so does one that is compressed by bzip2."""
    for compression, expected in ((zipfile.ZIP_DEFLATED, "Keras"), (zipfile.ZIP_BZIP2, "compressed by method 12")):
        archive({"config.json": CONFIG, "model.weights.h5": bytes(2**28)}, compression=compression)
        with open("bad.keras", "rb") as file:
            content = file.read()
        with open("bad.keras", "wb") as file:
            file.write(content.replace((2**28).to_bytes(4, "little"), (64).to_bytes(4, "little")))
        tracemalloc.start()
        assert expected in refusal()
        assert tracemalloc.get_traced_memory()[1] < 2**24
        tracemalloc.stop()


def test_more_weights_than_any_network_has_are_refused(keras, in_tmp_path, monkeypatch):
    source = str(keras / "flat-3.0.keras")
    monkeypatch.setattr(keras_layers, "MAX_BYTES", 2**20)
    assert re.search(r"model.weights.h5: \d+ bytes, the most is 1048576", refusal(source))
    assert re.search(r"\d+ numbers, the most is 262144", refusal(str(keras / "flat-3.0.weights.h5")))


def test_a_group_that_contains_itself_is_read_once(in_tmp_path):
    with h5py.File("loop.h5", "w") as file:
        layers = file.create_group("layers")
        layers.create_group("functional")["layers"] = layers
    assert "is there twice" in refusal("loop.h5")


def test_no_path_in_an_archive_is_obeyed(keras, network, in_tmp_path):
    shutil.copy(str(keras / "nested-3.0.keras"), "good.keras")
    with zipfile.ZipFile("good.keras", "a") as file:
        file.writestr("../outside", "x")
        file.writestr(str(in_tmp_path / "absolute"), "x")
    load(network, "good.keras")
    assert os.listdir(".") == ["good.keras"] and not os.path.exists("../outside")


def keras_2(name, operand):
    """An operation as Keras 2.4 to 2.15 stores it."""
    return {"class_name": "TFOpLambda", "config": {"name": "x", "function": name},
            "inbound_nodes": [["input_1", 0, 0, {"y": operand, "name": None}]]}  # fmt: skip


def layer(kind, **config):
    return {"class_name": kind, "config": dict(name="x", **config)}


@pytest.mark.parametrize("layers, mean, std", [
    ([keras_2("math.truediv", 127.5), keras_2("math.subtract", 1.0)], 0.5, 0.5),
    ([keras_2("math.multiply", 1 / 51.0), keras_2("__operators__.add", -2.0)], 0.4, 0.2),
    ([layer("RandomFlip"), layer("Rescaling", scale=1 / 127.5, offset=-1)], 0.5, 0.5),
    ([layer("Rescaling", scale=1 / 255.0, offset=0.0), layer("Rescaling", scale=2, offset=-1.0)], 0.5, 0.5),
    ([layer("Rescaling", scale=[1 / 51.0, 1 / 51.0, 1 / 51.0], offset=[0, 0, 0])], 0, 0.2),
])  # fmt: skip
def test_the_scaling_of_pixels_is_read(layers, mean, std):
    settings, unread = input_settings(layers)
    assert unread == [] and set(settings) == {"image_normalize_mean", "image_normalize_std"}
    np.testing.assert_allclose(settings["image_normalize_mean"], [mean] * 3, atol=1e-8)
    np.testing.assert_allclose(settings["image_normalize_std"], [std] * 3, rtol=1e-8)


def edited_config(source, path, edit):
    """A copy of an HDF5 file with edit(list of its layers' configurations)."""

    def edit_file(file):
        config = json.loads(keras_layers.as_text(file.attrs["model_config"]))
        edit(config["config"]["layers"])
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(config)

    return edited(source, path, edit_file)


def test_a_head_on_something_else_than_averages_is_left_out(keras, network, in_tmp_path, capsys):
    path = edited_config(
        keras / "nested.h5", "max.h5", lambda layers: layers[-3].update(class_name="GlobalMaxPooling2D")
    )
    load(network, path)
    assert re.search("other layers not loaded: dense[_0-9]*\n", capsys.readouterr().out)


LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wE"}}  # as Keras 3 stores one


@pytest.mark.parametrize("kind, given", [("Normalization", {"axis": [-1]}), ("Lambda", {"function": LAMBDA})])
def test_what_else_is_done_to_pixels_gives_a_note(keras, in_tmp_path, capsys, kind, given):
    unknown = layer(kind, **given)
    path = edited_config(keras / "nested.h5", "normalized.h5", lambda layers: layers.insert(1, unknown))
    config = inherit_settings({"model_arch": "mobilenetv2", "pretrained": path, "classes": CLASSES})
    assert (config.img_size, config.image_normalize_std) == (32, [0.5] * 3)
    names = "image_normalize_mean and image_normalize_std"
    expected = f"note: {path}: not read what {kind} does to images first; set {names} to match\n"
    assert capsys.readouterr().err == expected
