import pytest

from src import config
from src.errors import InputError
from src.settings import RULES, comments, settings


def test_defaults_are_those_of_the_document():
    assert config.model_arch == "lenet5"
    assert config.img_size == 32
    assert config.batch_size == 32
    assert config.validation_size == .16
    assert config.train_path == "data/cifar10png/train"
    assert config.test_path == "data/cifar10png/test"
    assert config.image_normalize_mean == [0.485, 0.456, 0.406]
    assert config.image_normalize_std == [0.229, 0.224, 0.225]
    assert (config.lr, config.decay, config.step_rate, config.epsilon) == (0.01, 0.95, 1000, 0.01)
    assert config.num_epoch == 1
    assert config.numchannels == 3


def test_given_wins_over_assigned_wins_over_default(monkeypatch):
    assert settings().batch_size == 32
    monkeypatch.setattr(config, "batch_size", 64)
    assert settings().batch_size == 64
    assert settings(batch_size=16).batch_size == 16


def test_a_setting_that_follows_from_another_can_be_given_or_assigned(monkeypatch):
    assert settings().checkpoint_dir == "checkpoints/lenet5"
    assert settings(checkpoint_dir="elsewhere").checkpoint_dir == "elsewhere"
    monkeypatch.setattr(config, "img_size", 48)
    assert settings().img_size == 48


def test_classes_follow_train_path_in_plain_string_order(folders):
    path = folders({"dog": 1, "Zebra": 1, "cat": 1, "10": 1, "9": 1})
    chosen = settings(train_path=path)
    assert chosen.classes == ["10", "9", "Zebra", "cat", "dog"]
    assert chosen.total_class == 5
    assert settings(train_path=path, classes=["dog", "cat"]).total_class == 2


def test_settings_are_a_copy(monkeypatch):
    chosen = settings()
    monkeypatch.setattr(config, "lr", 0.5)
    assert chosen.lr == 0.01


@pytest.mark.parametrize("name, value", [
    ("model_arch", "resnet"), ("model_arch", None), ("img_size", 0), ("img_size", 15), ("img_size", 32.0),
    ("batch_size", -1), ("batch_size", True), ("batch_size", "many"), ("validation_size", 0), ("validation_size", 1),
    ("validation_size", 16), ("lr", -0.1), ("lr", float("nan")), ("lr", float("inf")), ("decay", "0.9"),
    ("step_rate", 0), ("num_epoch", 0), ("channel_order", "gbr"), ("image_normalize_mean", [0.5, 0.5]),
    ("image_normalize_std", [1, 1, 0]), ("train_path", ""), ("train_path", 3), ("seed", -1), ("device", "tpu"),
    ("classes", ["cat", "cat"]), ("total_class", 7), ("numchannels", 1), ("early_stoping", 3),
    ("img_size", 10 ** 20), ("lr", 10 ** 400), ("checkpoint_dir", "run[1]"), ("train_path", "a\0b")])
def test_wrong_settings_are_named_in_one_line(name, value):
    with pytest.raises(InputError) as caught:
        settings(**{name: value})
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_setting_is_explained():
    explained = comments()
    for name in RULES:
        assert len(explained[name]) > 5
