import csv
import glob
import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

from convert.export import export_checkpoint
from src.errors import InputError
from src.settings import SETTINGS
from src.tf1 import tf
from tests.conftest import load_graph, make_folders, run_file, working_in
from trainer import Trainer
from utils.runs import find_run
from utils.tensorboard import new_run_folder

QUICK = {"img_size": 16, "batch_size": 8}


@pytest.fixture
def trainer(two_classes):
    return Trainer(**vars(two_classes))


def test_the_public_attributes_are_there(trainer):
    assert trainer.x.name == "Image:0" and trainer.x is trainer.model.getInput()
    assert trainer.y_true.shape.as_list() == [None, 2]
    assert (trainer.lr, trainer.step_rate, trainer.decay, trainer.train_batch_size) == (0.01, 1000, 0.95, 8)
    assert trainer.data.train.num_examples == 34 and trainer.data.valid.num_examples == 6  # 40 * .16 = 6.4
    for name in ("session", "cross_entropy", "cost", "learning_rate", "global_step", "optimizer", "accuracy"):
        assert getattr(trainer, name) is not None


def test_learning_rate_falls_in_steps(trainer):
    for step, expected in [(0, 0.01), (999, 0.01), (1000, 0.0095), (2500, 0.009025)]:
        assert trainer.session.run(trainer.learning_rate, {trainer.global_step: step}) == pytest.approx(expected)


def test_whole_numbers_are_numbers(two_classes):
    trainer = Trainer(**dict(vars(two_classes), lr=1, decay=1, epsilon=1, weight_decay=1))
    trainer.optimize(1)
    assert trainer.session.run(trainer.learning_rate) == 1


def test_cost_and_accuracy_of_a_batch_worked_out_in_numpy(trainer):
    images, labels, _, _ = trainer.data.train.next_batch(8)
    logits, cost, accuracy = trainer.session.run(
        [trainer.model.getOutput(), trainer.cost, trainer.accuracy], {trainer.x: images, trainer.y_true: labels}
    )
    probabilities = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    assert cost == pytest.approx(-np.log(probabilities[labels == 1]).mean(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == labels.argmax(1)).mean())


def test_a_step_is_adam_s(trainer):
    """One update of the last bias against Kingma & Ba (2014), algorithm 1, with epsilon as TensorFlow places it."""
    images, labels, _, _ = trainer.data.train.next_batch(8)
    feed = {trainer.x: images, trainer.y_true: labels}
    with trainer.graph.as_default():
        bias = [variable for variable in tf.trainable_variables() if variable.op.name == "fc3/bias"][0]
    logits, before = trainer.session.run([trainer.model.getOutput(), bias], feed)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = (probabilities - labels).mean(axis=0)
    trainer.session.run(trainer.optimizer, feed)
    m, v = 0.1 * gradient, 0.001 * gradient**2
    expected = before - 0.01 * np.sqrt(1 - 0.999) / (1 - 0.9) * m / (np.sqrt(v) + 0.01)
    np.testing.assert_allclose(trainer.session.run(bias), expected, rtol=1e-4, atol=1e-7)
    assert trainer.session.run(trainer.global_step) == 1


def test_optimize_and_export_leave_graph_checkpoint_and_record(trainer):
    trainer.optimize(num_epoch=1)
    path = trainer.export()
    assert path == "weights/lenet5/lenet5.pb"
    assert sorted(os.listdir("weights/lenet5")) == ["labels.txt", "lenet5.json", "lenet5.pb"]
    folder = f"checkpoints/lenet5/{os.path.basename(trainer.run_folder)}"
    assert tf.train.latest_checkpoint("checkpoints/lenet5") == f"{folder}/lenet5-4"  # floor(34 / 8)
    assert trainer.session.run(trainer.global_step) == 4
    with open(f"{folder}/run.json") as file:
        record = json.load(file)
    assert record["lenet5-4"]["settings"]["classes"] == ["cat", "dog"]
    assert record["lenet5-4"]["val_acc"] == trainer.val_acc


@pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError(None, None, "No space left"), OSError(28, "full")])
def test_a_full_disk_leaves_the_earlier_checkpoint_to_export(trainer, monkeypatch, error):
    def full_disk(*arguments, **options):
        raise error

    trainer.optimize(num_epoch=1)
    monkeypatch.setattr(trainer.saver, "save", full_disk)
    with pytest.raises(InputError, match="checkpoint_dir: found checkpoints/.*, which can no longer be written to"):
        trainer.optimize(num_epoch=1)
    assert find_run("checkpoints/lenet5").newest().endswith("/lenet5-4")


def test_a_loss_that_is_no_number_ends_training_and_is_not_saved(two_classes):
    trainer = Trainer(**dict(vars(two_classes), lr=1e20))
    with pytest.raises(FloatingPointError, match="lr: found 1e.20, try a smaller one"):
        trainer.optimize(num_epoch=5)
    assert tf.train.latest_checkpoint("checkpoints/lenet5") is None


def test_numpy_numbers_are_numbers(two_classes):
    trainer = Trainer(**dict(vars(two_classes), seed=np.int64(3), lr=np.float64(0.02), batch_size=np.int32(8)))
    trainer.optimize(num_epoch=1)
    assert find_run("checkpoints/lenet5").settings_of("lenet5-4").lr == 0.02


@pytest.fixture(scope="module")
def done_once(tmp_path_factory):
    """A folder in which one epoch was done."""
    folder = tmp_path_factory.mktemp("done_once")
    with working_in(folder):
        Trainer(train_path=make_folders("train", {"cat": 20, "dog": 20}), **QUICK).optimize(1)
    return folder


@pytest.fixture
def one_epoch(done_once, tmp_path, monkeypatch):
    """Work in a copy of it."""
    shutil.copytree(str(done_once), str(tmp_path / "work"))
    monkeypatch.chdir(str(tmp_path / "work"))


@pytest.mark.parametrize("name", ["lenet5-4.index", "lenet5-4.data-00000-of-00001", "run.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00damaged", None])
def test_damaged_checkpoints(one_epoch, name, content):
    path = run_file(name)
    os.remove(path)
    if content is not None:
        with open(path, "wb") as file:
            file.write(content)
    for action in (export_checkpoint, lambda: Trainer(resume=True)):
        with pytest.raises(InputError, match="checkpoint"):
            action()
    Trainer(train_path="train", **QUICK).optimize(1)
    assert export_checkpoint()[0] == "weights/lenet5/lenet5.pb"


@pytest.mark.parametrize("content", [b"", b"\xff\x00damaged", None])
def test_tensorflow_s_list_of_checkpoints_is_not_needed(one_epoch, content):
    os.remove("checkpoints/lenet5/checkpoint")
    if content is not None:
        with open("checkpoints/lenet5/checkpoint", "wb") as file:
            file.write(content)
    assert export_checkpoint()[0] == "weights/lenet5/lenet5.pb"
    assert Trainer(resume=True).step == 4


def test_a_number_of_epochs_from_numpy(trainer):
    trainer.optimize(np.int64(2))
    assert trainer.epoch == 2


@pytest.mark.parametrize("num_epoch", [0, -1, "3", 1.5])
def test_a_wrong_number_of_epochs(trainer, num_epoch):
    with pytest.raises(InputError, match="num_epoch"):
        trainer.optimize(num_epoch)


def test_validation_sees_every_image_once(trainer):
    images, labels = zip(*[batch[:2] for batch in trainer.data.valid.batches(1)])
    losses, hits = zip(
        *[
            trainer.session.run([trainer.cost, trainer.accuracy], {trainer.x: x, trainer.y_true: y})
            for x, y in zip(images, labels)
        ]
    )
    assert len(losses) == 6
    assert trainer.evaluate(trainer.data.valid) == pytest.approx((np.mean(losses), np.mean(hits)), rel=1e-5)


def test_tensorboard_reads_the_curves_the_graph_the_weights_and_the_settings(trainer):
    trainer.optimize(num_epoch=30)  # 120 steps
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == [
        "best_val_acc",
        "images_per_second",
        "learning_rate",
        "train_acc",
        "train_loss",
        "val_acc",
        "val_loss",
    ]
    assert events.Tags()["graph"] is True
    assert events.Scalars("best_val_acc")[-1].value == pytest.approx(max(e["val_acc"] for e in trainer.history))
    assert [event.step for event in events.Scalars("train_loss")] == [100, 120]  # each 100 steps, and the rest
    assert [event.step for event in events.Scalars("val_acc")] == list(range(4, 121, 4))
    assert [event.value for event in events.Scalars("learning_rate")] == pytest.approx([0.01, 0.01])
    assert events.Scalars("val_acc")[-1].value == pytest.approx(trainer.val_acc)
    assert events.Scalars("val_loss")[-1].value == pytest.approx(trainer.val_loss, rel=1e-5)
    assert min(event.value for event in events.Scalars("images_per_second")) > 1
    assert events.Tags()["histograms"] == [f"weights/{name}" for name in ("conv1", "conv2", "fc1", "fc2", "fc3")]
    weights = np.concatenate([part.ravel() for part in trainer.session.run(["fc3/kernel:0", "fc3/bias:0"])])
    last = events.Histograms("weights/fc3")[-1]
    assert last.step == 120
    assert last.histogram_value.num == weights.size
    assert (last.histogram_value.min, last.histogram_value.max) == pytest.approx((weights.min(), weights.max()))
    (settings_event,) = events.Tensors("settings")
    text = tf.make_ndarray(settings_event.tensor_proto).item().decode()
    assert "| batch_size | 8 |" in text and "| lr | 0.01 |" in text


def test_tensorboard_s_plugins_read_their_data(trainer):
    """Custom Scalars: two charts with two curves each; HParams: the settings of the run."""
    trainer.optimize(1)
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tf.make_ndarray(event.tensor_proto).item())
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert charts == {"loss": ["train_loss", "val_loss"], "accuracy": ["train_acc", "val_acc"]}
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = parse_session_start_info_plugin_data(content).hparams
    assert hparams["batch_size"].number_value == 8 and hparams["model_arch"].string_value == "lenet5"
    assert set(hparams) == set(SETTINGS)


def test_the_history_is_returned_and_in_a_file_that_grows_with_each_epoch(trainer, monkeypatch):
    save, lines = trainer.save, []

    def counting_save(reporter):
        save(reporter)
        with open(os.path.join(trainer.run_folder, "history.csv")) as file:
            lines.append(len(file.readlines()))

    monkeypatch.setattr(trainer, "save", counting_save)
    first, history = trainer.optimize(2), trainer.optimize(1)
    assert history == trainer.history and len(first) == 2 and lines == [2, 3, 4]
    with open(os.path.join(trainer.run_folder, "history.csv")) as file:
        rows = list(csv.DictReader(file))
    for entry, row in zip(history, rows):
        assert list(row) == ["epoch", "train_loss", "train_acc", "val_loss", "val_acc", "learning_rate", "seconds"]
        names = ["epoch", "loss", "acc", "val_loss", "val_acc", "learning_rate", "seconds"]
        assert [float(value) for value in row.values()] == pytest.approx([entry[name] for name in names], rel=1e-5)
    assert history[0]["learning_rate"] == pytest.approx(0.01) and history[0]["seconds"] > 0


@pytest.mark.parametrize("path, name", [
    ("flowers/train", "flowers"), ("/data/my photos/train/", "my_photos"), ("photos", "photos"), ("/", "data"),
])  # fmt: skip
def test_a_run_s_folder_has_the_name_of_its_data(in_tmp_path, path, name):
    assert re.fullmatch(r"logs/\d{8}-\d{6}-" + name, new_run_folder("logs", path, "checkpoints"))


def test_a_train_path_that_is_not_utf8(two_classes):
    path = two_classes.train_path + "\udcff"
    os.rename(two_classes.train_path, path)
    trainer = Trainer(**dict(vars(two_classes), train_path=path))
    trainer.optimize(1)
    assert export_checkpoint()[0] == trainer.export()


def test_training_says_what_it_computes_on_and_learns_from(two_classes, capsys):
    for name in ("a.gif", "b.gif", "notes.txt", "noend", ".hidden"):
        open(os.path.join(two_classes.train_path, "cat", name), "w").close()
    os.mkdir(os.path.join(two_classes.train_path, "dog", "more"))
    os.remove(os.path.join(two_classes.train_path, "dog", "000.png"))
    Trainer(**vars(two_classes))
    output = capsys.readouterr()
    first, second, third, note = output.out.splitlines()
    assert re.fullmatch(rf"TensorFlow {tf.__version__} on the CPU, with (oneDNN|Eigen) kernels", first)
    assert second == "33 images to train on, 6 to validate on; 2 classes of 19 (dog) to 20 (cat) images"
    assert third == f"note: skipped in {two_classes.train_path}: 2 .gif, 1 .txt, 1 folder, 1 without extension"
    assert output.err == ""
    assert (
        note == "note: setting test_path: found no folder data/cifar10png/test; evaluate will need one, by --test_path"
    )
    os.makedirs("tests/cat")
    Trainer(**dict(vars(two_classes), test_path="tests"))
    assert "found no images in class folder tests/cat, expected files" in capsys.readouterr().out
    make_folders("testing", {"cat": 1, "dog": 1})
    Trainer(**dict(vars(two_classes), test_path="testing"))
    assert "test_path" not in capsys.readouterr().out


def steps_kept(trainer):
    return sorted(int(path[:-6].split("-")[-1]) for path in glob.glob(f"{trainer.checkpoints.folder}/*.index"))


def script(monkeypatch, trainer, results):
    """Let validation find these (loss, accuracy), one after another."""
    results = iter(results)
    monkeypatch.setattr(trainer, "evaluate", lambda data: next(results))


def test_the_last_ten_checkpoints_of_a_run_are_kept(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    script(monkeypatch, trainer, [(1.0, epoch / 20) for epoch in range(12)])  # the last is the best
    trainer.optimize(num_epoch=12)
    kept = list(range(12, 49, 4))
    assert steps_kept(trainer) == kept
    second = Trainer(**dict(vars(two_classes), batch_size=5))
    script(monkeypatch, second, [(1.0, 0.1), (1.0, 0.2)])
    second.optimize(num_epoch=2)  # 6 steps an epoch
    assert steps_kept(second) == [6, 12] and steps_kept(trainer) == kept
    assert tf.train.latest_checkpoint("checkpoints/lenet5").endswith("lenet5-12")


def test_the_best_checkpoint_is_kept_beside_the_last_ten_and_exported(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    at_step, save = {}, trainer.save

    def noting_save(reporter):
        save(reporter)
        at_step[trainer.step] = trainer.session.run("fc3/kernel:0")

    monkeypatch.setattr(trainer, "save", noting_save)
    accuracies = [0.5, 0.7, 0.6, 0.7] + 10 * [0.4]
    script(monkeypatch, trainer, zip([1.0, 0.9, 1.0, 0.8] + 10 * [1.0], accuracies))
    trainer.optimize(num_epoch=14)
    assert steps_kept(trainer) == [16] + list(range(20, 57, 4))  # 16: .7 as at step 8, but with less loss
    assert export_checkpoint()[0] == trainer.export() == "weights/lenet5/lenet5.pb"
    assert export_checkpoint()[1]["checkpoint"].endswith("/lenet5-16")
    for export, step, val_acc in (
        (trainer.export, 16, 0.7),
        (export_checkpoint, 16, 0.7),
        (lambda: trainer.export(last=True), 56, 0.4),
        (lambda: export_checkpoint(last=True), 56, 0.4),
    ):
        export()
        exported = constants("weights/lenet5/lenet5.pb")["fc3/kernel/read"]
        assert np.array_equal(exported, at_step[step]) and not np.array_equal(exported, at_step[72 - step])
        with open("weights/lenet5/lenet5.json") as file:
            assert json.load(file)["val_acc"] == val_acc


def test_of_equally_good_epochs_the_first_is_the_best(two_classes, monkeypatch):
    trainer = Trainer(**vars(two_classes))
    script(monkeypatch, trainer, 3 * [(1.0, 0.5)])
    trainer.optimize(num_epoch=3)
    assert export_checkpoint()[1]["checkpoint"].endswith("/lenet5-4")


def test_export_takes_the_best_of_the_newest_run_only(two_classes, monkeypatch):
    for accuracies in ((0.9, 0.8), (0.3, 0.4)):
        trainer = Trainer(**dict(vars(two_classes), batch_size=8 if accuracies[0] == 0.9 else 5))
        script(monkeypatch, trainer, [(1.0, accuracy) for accuracy in accuracies])
        trainer.optimize(num_epoch=2)
    export_checkpoint()
    with open("weights/lenet5/lenet5.json") as file:
        assert json.load(file)["val_acc"] == 0.4


def constants(path):
    """{name: array} of the constants in a frozen graph."""
    constants = [node for node in load_graph(path).node if node.op == "Const"]
    return {node.name: tf.make_ndarray(node.attr["value"].tensor) for node in constants}


def test_a_trainer_exports_its_own_weights_where_another_has_saved_some_of_equal_step(two_classes, monkeypatch):
    first, second = [Trainer(**dict(vars(two_classes), seed=seed)) for seed in (1, 2)]
    for trainer in (first, second):
        script(monkeypatch, trainer, [(1.0, 0.5)])
        trainer.optimize(1)
    first.export()
    expected = first.session.run("fc3/kernel:0")
    assert np.array_equal(constants("weights/lenet5/lenet5.pb")["fc3/kernel/read"], expected)


def test_names_in_the_record_lead_nowhere_else(trainer, two_classes):
    trainer.optimize(1)
    with open(run_file("run.json")) as file:
        record = json.load(file)
    shutil.copy(run_file("lenet5-4.index"), "lenet5-1.index")
    for name in ("../../../lenet5-1", "a\0b", "\ud800", "/tmp/x", ""):
        record[name] = record["lenet5-4"]
    with open(run_file("run.json"), "w") as file:
        json.dump(record, file)
    assert [os.path.basename(prefix) for prefix in find_run("checkpoints/lenet5").prefixes()] == ["lenet5-4"]
    Trainer(resume=True, num_epoch=13).optimize()
    assert os.path.exists("lenet5-1.index") and not glob.glob("checkpoints/lenet5/*/lenet5-4.index")


def test_two_trainers_do_not_disturb_one_another(two_classes):
    first = Trainer(**vars(two_classes))
    second = Trainer(**dict(vars(two_classes), img_size=20, checkpoint_dir="second", weight_dir="second"))
    assert second.x.name == "Image:0" and second.model.getOutput().name == "output:0"
    weights = first.session.run(first.graph.get_tensor_by_name("fc3/kernel:0"))
    second.optimize(num_epoch=1)
    assert np.array_equal(first.session.run(first.graph.get_tensor_by_name("fc3/kernel:0")), weights)
    first.optimize(num_epoch=2)
    assert (first.step, second.step) == (8, 4)
    assert first.run_folder != second.run_folder


def test_the_same_seed_gives_the_same_start(two_classes):
    def start(**given):
        trainer = Trainer(**dict(vars(two_classes), **given))
        return trainer.evaluate(trainer.data.train)[0]

    assert start() == start()
    assert start(seed=1) != start()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_a_checkpoint(trainer, monkeypatch, stop):
    trainer.optimize(num_epoch=1)
    bar_update, calls = "tqdm.tqdm.update", []

    def interrupt(self, n=1):
        calls.append(n)
        if len(calls) == 3:
            raise stop

    monkeypatch.setattr(bar_update, interrupt)
    with pytest.raises(stop):
        trainer.optimize(num_epoch=1)
    assert tf.train.latest_checkpoint("checkpoints/lenet5").endswith("lenet5-7")
    assert trainer.session.run(trainer.global_step) == 7
    with open(run_file("run.json")) as file:
        assert json.load(file)["lenet5-7"]["val_acc"] is None


def test_a_step_that_was_done_when_ctrl_c_came_belongs_to_no_epoch(trainer, monkeypatch):
    run, steps = trainer.session.run, []

    def run_then_interrupt(fetches, *arguments, **options):
        result = run(fetches, *arguments, **options)
        if isinstance(fetches, list):
            steps.append(fetches)
            if len(steps) == 3:
                raise KeyboardInterrupt  # as Python raises it when the C++ part of session.run returns
        return result

    monkeypatch.setattr(trainer.session, "run", run_then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(num_epoch=1)
    assert trainer.session.run(trainer.global_step) == trainer.step == 3
    assert tf.train.latest_checkpoint("checkpoints/lenet5") is None  # its loss is lost: it would not be resumed exactly
    assert trainer.data.train.epochs_completed == trainer.epoch == 0 and trainer.state.step_in_epoch == 2
    trainer.optimize(num_epoch=1)  # does that step again, so that the means of the epoch are over all of its steps
    assert trainer.step == 5 and trainer.data.train.epochs_completed == trainer.epoch == 1


def test_curves_of_several_calls_are_all_kept(trainer):
    for _ in range(3):  # within a second
        trainer.optimize(num_epoch=1)
    events = EventAccumulator(trainer.run_folder)
    events.Reload()
    assert [event.step for event in events.Scalars("val_acc")] == [4, 8, 12]


def test_curves_are_on_disk_before_the_checkpoint(trainer, monkeypatch):
    def look(*arguments, **options):
        events = EventAccumulator(trainer.run_folder)
        events.Reload()
        assert [event.step for event in events.Scalars("val_acc")] == [4]
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.saver, "save", look)
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(num_epoch=1)


@pytest.mark.parametrize(
    "losses, patience, epochs",
    [
        ([5, 4, 3, 2, 1], 1, 5),
        ([5, 4, 4, 3, 2], 1, 3),
        ([5, 4, 6, 7, 3], 2, 4),
        ([5, 4, 6, 3, 4], 2, 5),
        ([1, 2, 3, 4, 5], None, 5),
    ],
)
def test_early_stopping(two_classes, monkeypatch, losses, patience, epochs):
    trainer = Trainer(**dict(vars(two_classes), early_stopping=patience))
    monkeypatch.setattr(trainer, "evaluate", lambda data: (losses[trainer.epoch], 0.5))
    trainer.optimize(num_epoch=5)
    assert trainer.epoch == epochs


def test_nothing_is_saved_when_nothing_was_learned(trainer, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.data.train, "_read_augmented", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.optimize(num_epoch=1)
    assert tf.train.latest_checkpoint("checkpoints/lenet5") is None


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"batch_size": 35}, "batch_size: found 35, expected at most 34"),
        ({"checkpoint_dir": "/dev/null/here"}, "checkpoint_dir"),
        ({"weight_dir": "/dev/null/here"}, "weight_dir"),
        ({"tensorboard_dir": "/dev/null/here"}, "tensorboard_dir"),
    ],
)
def test_what_cannot_work_is_said_before_training(two_classes, given, expected):
    with pytest.raises(InputError, match=expected):
        Trainer(**dict(vars(two_classes), **given))


def test_the_handler_of_signals_is_the_caller_s_business(two_classes):
    before = signal.getsignal(signal.SIGTERM)
    Trainer(**vars(two_classes)).optimize(num_epoch=1)
    assert signal.getsignal(signal.SIGTERM) is before
