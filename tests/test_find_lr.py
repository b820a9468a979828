"""python run.py find_lr: the learning-rate range test, on curves whose answer is known, on digits, interrupted."""

import os
import signal
import tempfile

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from trainer import Trainer
from utils.training.graph import Requests, TrainGraph
from utils.training.range_test import RATES, WINDOW, choose_rate, has_diverged, smooth

QUICK = ["--train_path", "train", "--img_size", "16", "--batch_size", "8", "--model_arch", "lenet5"]
NO_REQUESTS = Requests(stop=0, save=0)


def everything():
    """{path: when it was changed} of all files and folders here."""
    paths = [os.path.join(above, name) for above, folders, names in os.walk(".") for name in folders + names]
    return {path: os.stat(path).st_mtime for path in paths}


def sigmoid(rates, center, width):
    return 1 / (1 + np.exp(-np.log(rates / center) / width))


def test_the_rates_rise_by_the_same_factor():
    assert len(RATES) == 200 and (RATES[0], RATES[-1]) == pytest.approx((1e-5, 1))
    np.testing.assert_allclose(RATES[1:] / RATES[:-1], 10 ** (5 / 199))


def test_smoothing_is_that_of_scipy_and_shifts_nothing():
    losses = np.random.RandomState(0).rand(100)
    inside = slice(5 * WINDOW, -5 * WINDOW)  # SciPy mirrors what is missing at the ends
    np.testing.assert_allclose(
        smooth(losses)[inside], gaussian_filter1d(losses, WINDOW, truncate=10)[inside], atol=1e-5
    )
    falling = np.arange(100.0)[::-1]
    np.testing.assert_allclose(smooth(falling)[inside], falling[inside], atol=1e-4)
    np.testing.assert_allclose(smooth(np.full(100, 2.3)), 2.3)
    assert smooth([2.3]) == [2.3]


def test_the_rate_is_in_the_middle_between_the_steepest_fall_and_the_lowest_loss():
    """It falls by 2 around 0.002, and rises by 3 from 0.05 on; then it falls again, faster: a network that died."""
    noise = 0.1 * np.random.RandomState(0).randn(200)
    losses = 2.3 - 2 * sigmoid(RATES, 0.002, 0.5) + 3 * sigmoid(RATES, 0.1, 0.1) - 2.5 * sigmoid(RATES, 0.4, 0.05)
    choice = choose_rate(losses + noise)
    assert choice.steepest == pytest.approx(0.002, rel=0.2) and 0.01 < choice.lowest < 0.1
    assert np.log10(choice.rate) == pytest.approx(np.log10([choice.steepest, choice.lowest]).mean(), abs=0.02)
    assert choice.fall == pytest.approx(2, abs=0.15) and choice.noise == pytest.approx(0.1, abs=0.03)
    assert choice.rate == float(f"{choice.rate:.2g}")
    assert choose_rate((losses + noise)[:175]).rate == choice.rate  # stopped when it diverged


@pytest.mark.parametrize("losses", [
    [2.3], [2.3, 2.3], [2.3] * 200, np.geomspace(2.3, 300, 200), 2.3 + 0.2 * np.random.RandomState(1).randn(200),
])  # fmt: skip
def test_a_loss_that_does_not_fall_has_no_rate(losses):
    assert choose_rate(np.array(losses)).rate is None


def test_divergence():
    assert has_diverged([2.3, 2.2, np.nan]) and has_diverged([np.inf])
    assert not has_diverged([2.3] * 50) and not has_diverged([2.3] * 30 + [0.8] * 30 + [2.3] * 60)
    assert not has_diverged([2.3] * 60 + [9] * 2)  # of single steps
    assert has_diverged([2.3] * 60 + [40] * 10) and has_diverged([2.3] * 30 + [0.5] * 30 + [2.3] * 60)


def test_a_step_with_a_rate_of_its_own_is_that_of_a_training_with_it(two_classes):
    weights = []
    for lr, fed in ((0.01, 0.05), (0.05, None), (0.01, None)):
        trainer = Trainer(**dict(vars(two_classes), lr=lr))
        batch = trainer.data.train.next_batch(8)
        scalars = trainer.train_graph.step(trainer.session, batch, NO_REQUESTS, fed)[2]
        assert scalars["learning_rate"] == pytest.approx(fed or lr)
        weights.append(trainer.session.run(trainer.variables))
        assert trainer.train_graph.step(trainer.session, batch, NO_REQUESTS)[2]["learning_rate"] == pytest.approx(lr)
    for fed, trained in zip(*weights[:2]):
        np.testing.assert_array_equal(fed, trained)
    assert np.abs(weights[1][0] - weights[2][0]).max() > 1e-4


def test_the_digits(digits, in_tmp_path, run_here):
    """The rate is where one would set it by eye, and nothing is written but the figure."""
    data = ["--train_path", f"{digits}/train", "--test_path", f"{digits}/test"]
    done = run_here("find_lr", *data, "--checkpoint_dir", "my runs", cwd=".")
    assert done.returncode == 0, done.stderr
    assert list(everything()) == ["./learning_rate.png"] and cv2.imread("learning_rate.png").shape[1] > 500
    loss, figure, rate, command = done.stdout.splitlines()[-4:]
    assert float(loss.split()[2]) == pytest.approx(np.log(10), abs=0.2)
    assert figure == "figure        learning_rate.png"
    found = rate.split()[2].rstrip(",")
    assert 0.003 < float(found) < 0.012
    assert command.split(" run.py ")[1] == (
        f"--train_path={digits}/train --test_path={digits}/test '--checkpoint_dir=my runs' --lr={found}"
    )


def test_it_takes_what_training_takes_and_leaves_its_run_as_it_is(folders, in_tmp_path, run_here):
    """4 steps an epoch, 200 in all, of the head alone; at the lowest rates, the loss is that of the run's weights."""
    folders({"cat": 30, "dog": 12})
    assert run_here(*QUICK, "--weight_decay", "0.1", cwd=".").returncode == 0
    before = everything()
    given = ["--pretrained", "checkpoints/lenet5", "--train_layers", "head", "--class_weights", "balanced"]
    given += ["--augment", "crop", "--weight_decay", "0.1"]
    done = run_here("find_lr", *QUICK, *given, "--output", "other.png", cwd=".")
    assert done.returncode in (0, 1), done.stderr
    after = everything()
    assert after.pop("./other.png") and after == before
    assert "loaded 10 of 10 variables" in done.stdout
    trainer = Trainer(resume=True)
    kernel = trainer.session.run(trainer.graph.get_tensor_by_name("fc3/kernel:0"))
    images = sum(
        trainer.evaluate(data)[0] * share for data, share in ((trainer.data.train, 0.84), (trainer.data.valid, 0.16))
    )
    expected = images + 0.1 * (kernel**2).sum() / 2
    assert float(done.stdout.split("smoothed loss ")[1].split()[0]) == pytest.approx(expected, abs=0.2)


def test_images_that_teach_nothing(folders, in_tmp_path, run_here):
    """Both classes are of the same image."""
    for name in ("cat", "dog"):
        os.makedirs(f"train/{name}")
        for index in range(20):
            cv2.imwrite(f"train/{name}/{index}.png", np.full((16, 16, 3), 99, np.uint8))
    done = run_here("find_lr", *QUICK, cwd=".")
    assert done.returncode == 1 and "\nlearning rate none found: the smoothed loss fell by only " in done.stdout
    assert os.path.exists("learning_rate.png") and "to train with it" not in done.stdout


def steps_that(monkeypatch, step, action):
    """Let that step of the test end with action(), which returns a loss in place of the true one, or None."""
    train_step, losses = TrainGraph.step, []

    def changed(self, *arguments):
        found = train_step(self, *arguments)
        losses.append(found[0] if len(losses) + 1 != step else action() or found[0])
        return (losses[-1], *found[1:])

    monkeypatch.setattr(TrainGraph, "step", changed)
    return losses


def test_an_interruption_leaves_nothing(folders, in_tmp_path, run_here, monkeypatch):
    folders({"cat": 20, "dog": 20})
    os.mkdir("temporary")
    monkeypatch.setattr(tempfile, "tempdir", os.path.abspath("temporary"))
    losses = steps_that(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = everything()
    done = run_here("find_lr", *QUICK, cwd=".")
    assert (done.returncode, len(losses), list(everything())) == (130, 3, list(before))
    assert done.stdout.endswith("interrupted; learning_rate.png was not written\n")


def test_a_loss_that_becomes_nan(folders, in_tmp_path, run_here, monkeypatch):
    folders({"cat": 20, "dog": 20})
    losses = steps_that(monkeypatch, 60, lambda: np.nan)
    assert run_here("find_lr", *QUICK, cwd=".").returncode in (0, 1) and len(losses) == 60
    assert os.path.exists("learning_rate.png")
    os.remove("learning_rate.png")
    losses = steps_that(monkeypatch, 1, lambda: np.nan)
    done = run_here("find_lr", *QUICK, cwd=".")
    assert (done.returncode, done.stderr, len(losses)) == (
        2, "error: loss: found nan before the first update, expected a finite number\n", 1
    )  # fmt: skip
    assert not os.path.exists("learning_rate.png")


def test_bad_input(folders, in_tmp_path, run_here, monkeypatch):
    folders({"cat": 20, "dog": 20})
    losses = steps_that(monkeypatch, 0, None)
    folders({"cat": 1, "dog": 1}, "test")
    images = [os.path.join(part, "cat", name) for part in ("train", "test") for name in ("000.png", "new.png")]
    for output, problem in (
        *(
            (image, f"{image}, a file among the images of {image.split(os.sep)[0]}_path, expected another folder")
            for image in images
        ),
        ("graph.pb", "graph.pb, expected a name that ends in .png"),
        ("no/where.png", "no/where.png, expected a file in a folder that can be written to"),
    ):
        done = run_here("find_lr", *QUICK, "--test_path", "test", "--output", output, cwd=".")
        assert (done.returncode, done.stderr) == (2, f"error: --output: found {problem}\n")
    monkeypatch.setenv("TF_CONFIG", "{}")
    done = run_here("find_lr", *QUICK, cwd=".")
    assert done.returncode == 2 and done.stderr.startswith("error: TF_CONFIG: found a cluster, expected none")
    assert losses == []
