import os
import re

import numpy as np
import pytest

import run
from src import config
from src.errors import InputError
from src.settings import ROLES, SETTINGS, settings, with_role
from tests.conftest import REPOSITORY, python


def test_defaults():
    assert config.model_arch == "lenet5"
    assert config.img_size == 32
    assert config.batch_size == 32
    assert config.validation_size == 0.16
    assert config.train_path == "data/cifar10png/train"
    assert config.test_path == "data/cifar10png/test"
    assert config.image_normalize_mean == [0.485, 0.456, 0.406]
    assert config.image_normalize_std == [0.229, 0.224, 0.225]
    assert (config.lr, config.decay, config.step_rate, config.epsilon) == (0.01, 0.95, 1000, 0.01)
    assert config.num_epoch == 1
    assert config.numchannels == 3


def test_given_wins_over_assigned_wins_over_default(monkeypatch):
    assert settings().batch_size == 32
    monkeypatch.setitem(vars(config), "batch_size", 64)
    assert settings().batch_size == 64
    assert settings(batch_size=16).batch_size == 16


def test_a_setting_that_follows_from_another_can_be_given_or_assigned(monkeypatch):
    assert settings().checkpoint_dir == "checkpoints/lenet5"
    assert settings(checkpoint_dir="elsewhere").checkpoint_dir == "elsewhere"
    monkeypatch.setitem(vars(config), "img_size", 48)
    assert settings().img_size == 48


def test_classes_follow_train_path_in_plain_string_order(folders):
    path = folders({"dog": 1, "Zebra": 1, "cat": 1, "10": 1, "9": 1})
    chosen = settings(train_path=path)
    assert chosen.classes == ["10", "9", "Zebra", "cat", "dog"]
    assert chosen.total_class == 5
    assert settings(train_path=path, classes=["dog", "cat"]).total_class == 2


def test_settings_are_a_copy(monkeypatch):
    chosen = settings()
    monkeypatch.setitem(vars(config), "lr", 0.5)
    assert chosen.lr == 0.01


@pytest.mark.parametrize(
    "name, value",
    [
        ("model_arch", "resnet"),
        ("model_arch", None),
        ("img_size", 0),
        ("img_size", 15),
        ("img_size", 32.0),
        ("batch_size", -1),
        ("batch_size", True),
        ("batch_size", "many"),
        ("validation_size", 0),
        ("validation_size", 1),
        ("validation_size", 16),
        ("lr", -0.1),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("decay", "0.9"),
        ("step_rate", 0),
        ("num_epoch", 0),
        ("channel_order", "gbr"),
        ("image_normalize_mean", [0.5, 0.5]),
        ("image_normalize_std", [1, 1, 0]),
        ("train_path", ""),
        ("train_path", 3),
        ("seed", -1),
        ("device", "tpu"),
        ("deterministic", 1),
        ("classes", ["cat", "cat"]),
        ("total_class", 7),
        ("numchannels", 2),
        ("numchannels", True),
        ("image_normalize_mean", [0.5]),
        ("early_stoping", 3),
        ("img_size", 10**20),
        ("lr", 10**400),
        ("width", 1e20),
        ("classes", []),
        ("image_normalize_std", [1e-60, 1, 1]),
        ("weight_dir", "w\udcff"),
        ("model_arch", np.array(["lenet5", "mobilenetv2"])),
        ("lr", np.zeros((40, 40))),
        ("checkpoint_dir", "run[1]"),
        ("train_path", "a\0b"),
    ],
)
def test_wrong_settings_are_named_in_one_line(name, value):
    with pytest.raises(InputError) as caught:
        settings(**{name: value})
    error = caught.value
    assert f"setting {name}" in error.subject and (error.expected or error.hint)
    assert "\n" not in str(error)


@pytest.mark.parametrize("given, found, expected", [
    ({"lr": 0}, "0", "a number above 0"), ({"lr": 1e40}, "1e+40", "a number above 0, below 1e+30"),
    ({"device": "tpu"}, "'tpu'", "gpu or cpu"), ({"seed": 2**31}, "2147483648", "a whole number, 0 to 2147483647"),
    ({"img_size": 15}, 15, "16 or more for lenet5"),
    ({"total_class": 3, "classes": ["a", "b"]}, 3, "2, the number of classes"),
    ({"classes": ["x" * 300, "x" * 300]}, f"['{'x' * 195}...", "a list of different names of folders, such as "
     '["cat", "dog"], in UTF-8, without / or line breaks'),
])  # fmt: skip
def test_a_wrong_setting_says_what_was_found_and_expected(given, found, expected):
    with pytest.raises(InputError) as caught:
        settings(**given)
    error = caught.value
    assert (error.subject, error.found, error.expected) == (f"setting {next(iter(given))}", found, expected)


def test_every_setting_is_explained():
    for setting in SETTINGS.values():
        assert len(setting.help) > 10


def test_the_comment_of_each_setting_in_the_config_is_its_help():
    with open(config.__file__, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for name, setting in SETTINGS.items():
        (number,) = [number for number, line in enumerate(lines) if line.startswith(f"{name} = ")]
        above, line = lines[number - 1], lines[number]
        comment = line.partition("  # ")[2] or (above[2:] if above.startswith("# ") else "")
        assert comment == setting.help, name


def test_every_setting_has_roles_and_one_says_whether_it_may_differ_when_a_run_is_resumed():
    for name, setting in SETTINGS.items():
        assert setting.roles <= set(ROLES), name
        assert len(setting.roles & {"learning", "duration", "machine"}) == 1, name
    with pytest.raises(AssertionError):
        with_role("output_dirs")


@pytest.mark.parametrize("roles, expected", [
    ("preprocessing",
     "img_size numchannels image_normalize_mean image_normalize_std channel_order resize transparency"),
    ("architecture", "width strides"),
    ("preprocessing architecture",  # what is taken over with pretrained weights, and printed in this order
     "img_size numchannels width strides image_normalize_mean image_normalize_std channel_order resize transparency"),
    ("machine",
     "train_path test_path valid_path cache_mb device deterministic memory_check step_timeout cluster_timeout "
     "checkpoint_minutes keep_runs checkpoint_dir weight_dir tensorboard_dir"),
    ("duration", "num_epoch early_stopping"),
    ("derived", "img_size classes total_class weight_decay checkpoint_dir weight_dir tensorboard_dir"),
    ("output_dir", "checkpoint_dir weight_dir tensorboard_dir"),
    ("learning",
     "model_arch img_size numchannels width strides batch_norm_momentum pretrained train_layers classes total_class "
     "validation_size batch_size image_normalize_mean image_normalize_std channel_order resize transparency augment "
     "class_weights bad_images seed lr decay step_rate epsilon weight_decay"),
])  # fmt: skip
def test_the_settings_of_each_role(roles, expected):
    assert with_role(*roles.split()) == expected.split()


def test_the_page_names_the_settings_that_may_change_on_resume():
    with open(os.path.join(REPOSITORY, "docs", "settings.md"), encoding="utf-8") as file:
        (paragraph,) = [text for text in file.read().split("\n\n") if text.startswith("A run that is resumed")]
    assert re.findall(r"`(\w+)`", paragraph) == with_role("duration", "machine")


def test_what_follows_from_others_has_its_value_in_config(folders, monkeypatch):
    assert (config.img_size, config.weight_decay) == (32, 0.0)
    assert (config.checkpoint_dir, config.weight_dir, config.tensorboard_dir) == (
        "checkpoints/lenet5",
        "weights/lenet5",
        "graphs/lenet5",
    )
    monkeypatch.setitem(vars(config), "train_path", folders({"cat": 1, "dog": 1}))
    assert (config.classes, config.total_class) == (["cat", "dog"], 2)
    monkeypatch.setitem(vars(config), "model_arch", "mobilenetv2")
    assert (config.img_size, config.weight_decay, config.weight_dir) == (224, 4e-5, "weights/mobilenetv2")


def test_importing_the_config_lists_no_folder(tmp_path):
    code = (
        "import os; listed = []; scandir = os.scandir; os.scandir = lambda path: listed.append(path) or scandir(path); "
        "from src import config; assert config.img_size == 32 and not listed; "
        "assert config.classes == ['cat'] and listed == [config.train_path]"
    )
    (tmp_path / "data" / "cifar10png" / "train" / "cat").mkdir(parents=True)
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("img_size", [32, 40])
def test_a_value_set_by_hand_stays_when_the_network_is_another(monkeypatch, img_size):
    monkeypatch.setitem(vars(config), "img_size", img_size)  # 32 is what follows for lenet5 anyway
    assert settings(model_arch="mobilenetv2").img_size == img_size
    monkeypatch.setitem(vars(config), "weight_dir", "weights/lenet5")
    assert settings(model_arch="mobilenetv2").weight_dir == "weights/lenet5"


def test_a_name_in_the_config_that_is_no_setting_is_named_with_the_nearest(monkeypatch):
    monkeypatch.setitem(vars(config), "bacth_size", 64)
    with pytest.raises(InputError) as caught:
        settings()
    error = caught.value
    assert (error.subject, error.found) == ("src/config.py: unknown setting bacth_size", None)
    assert error.hint == "did you mean batch_size?"


def test_a_name_in_the_config_that_is_like_no_setting_may_be_of_the_users_own(monkeypatch):
    monkeypatch.setitem(vars(config), "x", 64)
    with pytest.raises(InputError) as caught:
        settings()
    assert caught.value.hint == "names of your own must begin with an underscore"


def test_helpers_in_the_config_are_no_settings(monkeypatch):
    for name, value in {"_base": "/data", "os": os, "half": lambda value: value / 2, "Path": type(os)}.items():
        monkeypatch.setitem(vars(config), name, value)
    assert not {"_base", "os", "half", "Path"} & set(vars(settings()))


def test_a_setting_missing_from_the_config_is_named(monkeypatch):
    monkeypatch.delitem(vars(config), "lr")
    with pytest.raises(InputError) as caught:
        settings()
    error = caught.value
    assert (error.subject, error.found, error.expected) == ("src/config.py", "no lr", "a value for it")


def test_a_network_without_its_lines_in_the_config_is_told(monkeypatch):
    monkeypatch.setitem(config.MODEL_ARCHS, "resnet", {"min_img_size": 32})
    monkeypatch.setattr(config, "model_defaults", lambda model_arch: {})
    changed = SETTINGS["model_arch"]._replace(is_valid=lambda value: value == "resnet")
    monkeypatch.setitem(SETTINGS, "model_arch", changed)
    with pytest.raises(InputError) as caught:
        settings(model_arch="resnet")
    assert caught.value.subject == "src/config.py"
    assert caught.value.found == "no img_size for resnet in model_defaults"
    assert settings(model_arch="resnet", img_size=64, weight_decay=0).img_size == 64


@pytest.mark.parametrize("defaults, expected", [
    ({"img_size": np.int64(48), "weight_decay": 0}, None),
    ({"img_size": 32, "weight_decay": -1.0}, "setting weight_decay: found -1.0, expected a number, 0 or more"),
    ({"img_size": 32.5, "weight_decay": 0.0}, "setting img_size: found 32.5"),
    ({"img_size": None, "weight_decay": 0.0}, "setting img_size: found None"),
])  # fmt: skip
def test_what_model_defaults_gives_is_checked(monkeypatch, defaults, expected):
    monkeypatch.setattr(config, "model_defaults", lambda model_arch: defaults)
    if expected is None:
        assert type(settings().img_size) is int and settings().img_size == 48
    else:
        with pytest.raises(InputError, match=expected):
            settings()


@pytest.mark.parametrize("name, value, expected", [
    ("model_arch", "lenet", "setting model_arch: found 'lenet', expected lenet5 or mobilenetv2"),
    ("model_arch", None, "setting model_arch: found None"), ("classes", 5, "setting classes: found 5"),
    ("img_size", int, "setting img_size: found <class 'int'>"), ("train_path", None, "setting train_path: found None"),
])  # fmt: skip
def test_a_wrong_value_in_the_config_is_named_but_help_and_a_given_value_work(
    monkeypatch, capsys, folders, name, value, expected
):
    monkeypatch.setitem(vars(config), name, value)
    with pytest.raises(InputError, match=f"^{expected}"):
        settings()
    with pytest.raises(SystemExit) as ended:
        run.main(["--help"])
    assert ended.value.code == 0 and "--img_size" in capsys.readouterr().out
    path = folders({"cat": 1, "dog": 1})
    given = {"model_arch": "lenet5", "classes": ["cat", "dog"], "img_size": 32, "train_path": path}
    assert settings(**given).classes == ["cat", "dog"]


@pytest.mark.parametrize("text, names", [
    ("cat,dog", ["cat", "dog"]), ("1", ["1"]), ('["cat, black","dog"]', ["cat, black", "dog"]),
    ("['cat']", "['cat']"), ("None", None),
])  # fmt: skip
def test_class_names_on_the_command_line(text, names):
    assert SETTINGS["classes"].parse(text) == names


@pytest.mark.parametrize("name, nearest", [("epochs", "num_epoch"), ("bacth_size", "batch_size")])
def test_an_unknown_setting_is_told_the_nearest(name, nearest):
    with pytest.raises(InputError) as caught:
        settings(**{name: 3})
    assert (caught.value.subject, caught.value.hint) == (f"unknown setting {name}", f"did you mean {nearest}?")


@pytest.mark.parametrize("text", ["0x" + 5000 * "f", 150 * "(" + "1" + 150 * ")", "{[]}", 3000 * "-"])
def test_odd_text_for_a_number_is_no_number(text, capfd):
    assert not SETTINGS["lr"].is_valid(SETTINGS["lr"].parse(text))
    assert capfd.readouterr() == ("", "")


def test_lines_of_the_user_in_model_defaults_go_before_the_table_of_networks(monkeypatch):
    def model_defaults(model_arch):  # as the lines of an earlier src/config.py
        if model_arch == "mobilenetv2":
            img_size = 160
        if model_arch == "lenet5":
            img_size = 28
        return {"img_size": img_size, "weight_decay": 0.5}

    monkeypatch.setattr(config, "model_defaults", model_defaults)
    assert (settings().img_size, settings().weight_decay, config.img_size) == (28, 0.5, 28)
    assert settings(model_arch="mobilenetv2").img_size == 160
