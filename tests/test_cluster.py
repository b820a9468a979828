"""Processes that train together: the same as one process with larger batches, also if one is lost and restarted."""

import inspect
import json
import os
import re
import signal
from collections import namedtuple

import numpy as np
import pytest

from dataset import read_train_sets
from src.errors import InputError
from src.settings import settings
from src.tf1 import tf
from tests.conftest import working_in
from tests.helpers.cluster_launch import Launched, of_digits
from tests.helpers.cluster_workers import note_deadlines, start_workers, train_together
from tests.helpers.processes import assert_gone
from trainer import Trainer
from utils.checkpoints.manager import assign, read_weights
from utils.checkpoints.run_index import find_run
from utils.cluster.collectives import Cluster, SingleProcess, join_cluster
from utils.cluster.launch import free_addresses
from utils.cluster.tf_config import read_tf_config

Together = namedtuple("Together", "folder results")  # the latter as train_together returns them


@pytest.fixture(scope="module")
def two_workers(digits, tmp_path_factory):
    """Two workers that have learned for four epochs, and the folder in which they did."""
    folder = str(tmp_path_factory.mktemp("two_workers"))
    with working_in(folder):
        given = {"train_path": f"{digits}/train", "num_epoch": 4, "batch_size": 16}
        return Together(folder, train_together(2, given))


def assert_identical(results):
    """All workers have the same weights, Adam's variables and history, bit by bit."""
    (weights, notes), *others = results
    for other, its_notes in others:
        assert set(other) == set(weights)
        assert [name for name in weights if weights[name].tobytes() != other[name].tobytes()] == []
        for entry, its_entry in zip(notes["history"], its_notes["history"]):
            assert dict(entry, seconds=0) == dict(its_entry, seconds=0)


# What Kubernetes' TFJob sets, and what else people may write.
TFJOB = """{"cluster":{"chief":["mnist-chief-0.default.svc:2222"],"worker":["mnist-worker-0.default.svc:2222",
"mnist-worker-1.default.svc:2222"]},"task":{"type":"worker","index":1},"environment":"cloud"}"""


def test_tf_config_of_kubernetes():
    addresses, rank, launcher = read_tf_config(TFJOB)
    assert list(addresses) == ["chief 0", "worker 0", "worker 1"] and (rank, launcher) == (2, None)
    assert addresses["worker 0"] == "mnist-worker-0.default.svc:2222"
    workers = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "0"}}'
    assert read_tf_config(workers) == ({"worker 0": "a:1", "worker 1": "b:1"}, 0, None)  # then worker 0 is the chief
    for alone in ("", "{}", '{"environment": "cloud"}', '{"task": {"type": "worker", "index": 0}}'):
        assert read_tf_config(alone) == ({}, 0, None)


TWO = '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": '


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{", "found '{', expected a JSON object"),
        ("[1]", "found '.1.', expected a JSON object"),
        ("[" * 100000, "expected a JSON object"),
        ('{"cluster": ["a:1"]}', "found the cluster .'a:1'., expected one such as"),
        ('{"cluster": {"worker": "a:1"}}', "found the cluster .*, expected one such as"),
        ('{"cluster": {"worker": ["a:1"]}}', "found the task None, expected one such as"),
        (TWO + '{"type": "worker"}}', "found the task .*, expected one such as"),
        (TWO + '{"type": "evaluator", "index": 0}}', "found a task of type evaluator, expected only chief and worker"),
        (
            TWO.replace("chief", "ps") + '{"type": "worker", "index": 0}}',
            "found a task of type ps, expected only chief and",
        ),
        (TWO + '{"type": "worker", "index": 1}}', "found the task worker 1, expected one of chief 0, worker 0"),
        (TWO + '{"type": "worker", "index": -1}}', "found the task worker -1, expected one of chief 0, worker 0"),
        (TWO.replace("b:1", "b") + '{"type": "worker", "index": 0}}', "found 'b' for worker 0, expected a host and a"),
        (TWO.replace("b:1", "b..de:1") + '{"type": "worker", "index": 0}}', "found 'b..de:1' for worker 0, expected a"),
        (TWO.replace("b:1", "b:99999") + '{"type": "worker", "index": 0}}', "found 'b:99999' for worker 0, expected a"),
        (
            '{"cluster": {"worker": []}, "task": {"type": "worker", "index": 0}}',
            "found the workers , expected at least one",
        ),
        (
            TWO.replace("b:1", "a:1") + '{"type": "worker", "index": 0}}',
            "workers a:1, a:1, expected at least one, at most one",
        ),
        (
            '{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}',
            "expected at least one, at most one chief",
        ),
        (
            '{"cluster": {"worker": [3]}, "task": {"type": "worker", "index": 0}}',
            "found 3 for worker 0, expected a host",
        ),
    ],
)
def test_a_wrong_tf_config_is_refused(text, expected):
    with pytest.raises(InputError, match=f"^environment variable TF_CONFIG: .*{expected}"):
        read_tf_config(text)


def test_workers_share_out_the_batches_of_one_process(folders, in_tmp_path):
    data = read_train_sets(settings(train_path=folders({"cat": 40, "dog": 43}), img_size=16, augment="crop+flip"))
    whole = list(data.train.epoch(12, 1))
    data.train.set_epoch(0)
    parts = []
    for rank in range(3):
        parts.append(list(data.train.epoch(4, 1, rank, 3)))
        data.train.set_epoch(0)
    assert len(whole) == data.train.num_examples // 12 - 1
    for batch, *shares in zip(whole, *parts):
        np.testing.assert_array_equal(batch.images, np.concatenate([share.images for share in shares]))
        assert batch.ids == sum([share.ids for share in shares], [])
    everything = [batch.images for batch in data.valid.batches(5)]
    shares = [batch.images for rank in range(3) for batch in data.valid.batches(2, rank, 3)]
    np.testing.assert_array_equal(np.concatenate(everything), np.concatenate(shares))


def test_two_workers_learn_what_one_process_learns_with_twice_the_batch(two_workers, digits, in_tmp_path):
    """Every four steps it takes over their weights and Adam's variables, for training enlarges what differs in the last
    bits: one process whose first weights are changed in them was seen to be 1e-3 off after 48 steps, .9 after 111."""
    alone = Trainer(train_path=f"{digits}/train", num_epoch=3, batch_size=32)
    variables, costs, step = alone.session.graph.get_collection("variables"), [], alone.train_graph.step

    def noting_step(session, *arguments):
        if alone.step % 4 == 0:
            values = {variable.op.name: states[f"{alone.step} {variable.op.name}"] for variable in variables}
            assign(session, variables, values)
        result = step(session, *arguments)
        costs.append(result[0])
        return result

    alone.train_graph.step = noting_step
    with np.load(os.path.join(two_workers.folder, "states0.npz")) as states:
        history = alone.optimize()
    assert len(costs) > 100
    assert_identical(two_workers.results)
    for _, notes in two_workers.results:
        np.testing.assert_allclose(notes["costs"][: len(costs)], costs, rtol=1e-4)
    history_together = two_workers.results[0][1]["history"]
    np.testing.assert_allclose(history_together[2]["val_loss"], history[2]["val_loss"], rtol=1e-4)


def test_four_workers_use_each_image_once(folders, in_tmp_path):
    """Of 99 training images, in batches of 4 for each worker, 3 are left over; of validation images none is.

    Another number of workers does not go on with their run.
    """
    path = folders({"cat": 61, "dog": 57})
    given = {"train_path": path, "img_size": 16, "batch_size": 4, "model_arch": "lenet5", "num_epoch": 1}
    results = train_together(4, given)
    assert_identical(results)
    data = read_train_sets(settings(**given))

    def names(paths):
        return sorted(os.path.basename(path) for path in paths)

    trained = sum([notes["trained"] for _, notes in results], [])
    order = [data.train.paths[index] for index in data.train._order]
    assert len(trained) == 96 and sorted(trained) == names(order[:96])
    assert sorted(sum([notes["validated"] for _, notes in results], [])) == names(data.valid.paths)
    expected = (
        "--resume: found 1 process, expected 4, as when the run started; python run.py launch --workers 4 --resume"
    )
    with pytest.raises(InputError, match=expected):
        Trainer(resume=True, num_epoch=2)


def test_moving_statistics_are_the_means_of_those_of_the_workers(folders, shallow, in_tmp_path):
    given = {"train_path": folders({"cat": 20, "dog": 20}, size=32), "batch_size": 16, "num_epoch": 1}
    given.update(model_arch="mobilenetv2", img_size=32, width=0.35)
    results = train_together(2, given)
    assert_identical(results)
    alone, expected = Trainer(**given), []
    variables = alone.session.graph.get_collection("variables")
    first = dict(zip([variable.op.name for variable in variables], alone.session.run(variables)))
    moving = [variable for variable in alone.variables if "moving" in variable.op.name]
    for rank in range(2):  # one process makes the step of that worker alone
        assign(alone.session, variables, first)
        alone.data.train.set_epoch(0)
        batch = next(alone.data.train.epoch(16, 0, rank, 2))
        alone.session.run(alone.optimizer, {alone.x: batch.images, alone.y_true: batch.labels})
        expected.append(dict(zip([variable.op.name for variable in moving], alone.session.run(moving))))
    assert len(expected[0]) == 20  # two of each batch norm
    means = {name: (value + expected[1][name]) / 2 for name, value in expected[0].items()}
    for name, mean in means.items():
        # A layer's mean may be 0 but for rounding, which is of the order of its deviation; it has a tenth of both yet.
        deviation = np.sqrt((means[name.replace("moving_mean", "moving_variance")] - 0.9).max() / 0.1)
        np.testing.assert_allclose(results[0][0][name], mean, rtol=1e-5, atol=1e-6 * deviation)


def test_a_cluster_that_loses_a_worker_ends_where_one_does_that_does_not(two_workers, digits, in_tmp_path):
    launched = Launched(*of_digits(digits, 4), "--checkpoint_minutes", "0.005")
    launched.wait_for("epoch 2/4")
    workers = launched.workers()
    os.kill(workers[1], signal.SIGKILL)
    launched.wait_for("restarting all workers (1 of 3)")
    assert_gone(workers)
    launched.wait_for("resuming checkpoints")
    workers = launched.workers()
    code, output = launched.end()
    assert code == 0, output
    assert "worker 0 exited with code 137" in output
    assert_gone(workers)
    weights, others = two_workers.results[0][0], read_weights("checkpoint", find_run("checkpoints/lenet5").latest())
    assert set(weights) == set(others)
    assert [name for name in weights if weights[name].tobytes() != others[name].tobytes()] == []
    accuracy = re.search(r"best epoch .* validation accuracy (0\.\d+)", output)
    assert float(accuracy.group(1)) > 0.93  # one process has .94 to .96 after four epochs


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_launch_that_is_ended_leaves_no_process(digits, in_tmp_path, sent, code):
    launched = Launched(*of_digits(digits, 1000))
    launched.wait_for("epoch 1/1000")
    workers = launched.workers()
    assert len(workers) == 2
    launched.process.send_signal(sent)
    found, output = launched.end()
    assert found == code, output
    assert_gone(workers)
    if code > 0:
        assert output.count("stopped; saved checkpoints") == 1 and "rror" not in output
        assert find_run("checkpoints/lenet5").latest() in output
        command = re.search(r"to resume: .* run.py launch --workers 2 (--resume --run \S+)\n", output)
        launched = Launched(*command.group(1).split())
        launched.wait_for("of 1000 epochs done")
        launched.wait_for("validation loss")
        launched.process.send_signal(sent)
        assert launched.end()[0] == code


def test_each_trainer_of_a_process_has_its_own_timeouts(folders, in_tmp_path):
    given = {"train_path": folders({"cat": 20, "dog": 20}), "img_size": 16, "batch_size": 4}
    for worker in start_workers(2, note_deadlines, given, (50, 1000)):
        code, errors = worker.end(100)
        assert code == 0, errors
    for rank in range(2):
        with open(f"deadlines{rank}.json") as file:
            notes = json.load(file)
        for seconds, (steps, wait) in zip((50, 1000, 50), notes):
            assert len(steps) == 4  # of 36 images
            assert all(seconds - 20 < left <= seconds for left in steps)
            assert 2 * seconds - 20 < wait <= 2 * seconds


def methods(kind):
    """{name: its parameters} of the public methods of a class, static ones included."""
    found = {name: getattr(kind, name) for name in vars(kind) if name[0] != "_"}
    signatures = {name: inspect.signature(value).parameters for name, value in found.items() if callable(value)}
    return {name: [parameter for parameter in given if parameter != "self"] for name, given in signatures.items()}


def test_a_process_alone_has_all_that_a_cluster_has():
    assert methods(Cluster) == methods(SingleProcess) and "all_reduce_mean" in methods(Cluster)


def test_a_cluster_of_one_worker_is_a_process_alone(monkeypatch):
    tf_config = {"cluster": {"worker": free_addresses(1)}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(tf_config))
    cluster = join_cluster(settings())
    assert (cluster.rank, cluster.world_size, cluster.is_chief, cluster.launcher) == (0, 1, True, None)
    assert cluster.all_reduce_sum([1, 2.5]).tolist() == [1, 2.5] and cluster.broadcast_object({"a": 1}) == {"a": 1}
    assert cluster.all_or_none(lambda: 3) == 3


def test_without_tf_config_the_graph_has_no_collective_operation(two_classes):
    trainer = Trainer(**vars(two_classes))
    assert [op.type for op in trainer.graph.get_operations() if "Collective" in op.type] == []
    assert isinstance(trainer.session, tf.Session) and trainer.session.sess_str == b""
