"""Trainer: the graph, the session and the training loop.

T = Trainer()
T.optimize(num_epoch=1)
T.export()
"""

import math
import os
import time
from typing import List, Optional, Tuple

import numpy as np

from convert.freeze import freeze
from dataset import DataSet, describe, read_train_sets
from models import build
from src.errors import InputError, escape_control_characters
from src.settings import check
from src.tf1 import describe_device, open_session, tf
from utils.checkpoints import INHERITED, KEPT, Checkpoints, assign, find_checkpoint, inherit_settings, read_weights
from utils.files import make_writable
from utils.loader import inference_batch
from utils.reporter import Reporter
from utils.tensorboard import new_run_folder


class Trainer:
    """Learns to classify the images under config.train_path. Owns its graph and its session.

    Args:
        given: settings that differ from src/config.py for this Trainer, such as Trainer(batch_size=64).

    Attributes:
        history: a dict for each epoch of this Trainer: epoch (from 1), loss and acc (means over its steps, each before
            its update), val_loss and val_acc (of the whole validation set, after the epoch), learning_rate (of its last
            step), seconds.
        run_folder: where the TensorBoard log and the pictures are; None before the first epoch.
        config, data, model, session, x, y_true, cross_entropy, cost, accuracy, optimizer, learning_rate, global_step.

    Raises:
        InputError: a wrong setting, a data set that cannot be used, a folder that cannot be written to.
    """

    def __init__(self, **given):
        self.config = config = inherit_settings(given)
        self.data = read_train_sets(config)
        self.train_batch_size = config.batch_size
        if self.train_batch_size > self.data.train.num_examples:
            expected = f"expected at most {self.data.train.num_examples}, the number of training images"
            raise InputError(f"setting batch_size: found {self.train_batch_size}, {expected}")
        for setting in ("checkpoint_dir", "weight_dir", "tensorboard_dir"):
            make_writable(setting, getattr(config, setting))
        self.checkpoints = Checkpoints(config.checkpoint_dir)
        self.epoch = 0  # epochs done
        self.step = 0  # steps done
        self.val_loss = self.val_acc = None  # of the weights as they are now, if they were validated
        self.history = []
        self.saved_step = 0
        self.run_folder = None
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(config.seed)
            self._build_networks()
            self._build_optimizer()
            self.saver = tf.train.Saver(max_to_keep=KEPT)
            self.session = open_session(config.device)
            self._introduce()
            self.session.run(tf.global_variables_initializer())
            if config.pretrained:
                self._load_pretrained()

    def _introduce(self):
        """Say what the run computes on, and what it learns from."""
        print(f"{describe_device(self.session)}\n{describe(self.data, self.config.classes)}", flush=True)
        test_path = self.config.test_path
        for folder in [test_path] + [os.path.join(test_path, name) for name in self.config.classes]:
            if not os.path.isdir(folder):
                text = f"note: setting test_path: found no folder {folder}; evaluate will need one, by --test_path"
                print(escape_control_characters(text), flush=True)
                break

    def _build_networks(self):
        """The network that learns, and one for inference on the same input, which shares its variables."""
        config = self.config
        self.model = build(config, is4Train=True)
        self.variables = tf.global_variables()  # those of the model: what is learned and the moving statistics
        self.x = self.model.getInput()
        self.y_true = tf.placeholder(tf.float32, [None, config.total_class], name="y_true")
        with tf.name_scope("inference"):
            eval_model = build(config, is4Train=False, image=self.x)
            self.inference = classify(eval_model.getOutput(), self.y_true)[1:]
        self.cross_entropy, self.cost, self.accuracy = classify(self.model.getOutput(), self.y_true)

    def _build_optimizer(self):
        config = self.config
        self.lr, self.step_rate, self.decay = float(config.lr), config.step_rate, float(config.decay)
        self.global_step = tf.train.get_or_create_global_step()
        self.learning_rate = tf.train.exponential_decay(
            self.lr, self.global_step, self.step_rate, self.decay, staircase=True
        )
        self.scalars = {"learning_rate": self.learning_rate}  # to log beside loss and accuracy
        if config.weight_decay:
            kernels = [variable for variable in self.variables if variable.op.name.endswith("kernel")]
            self.weight_loss = config.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
            self.cost += self.weight_loss
            self.scalars["weight_loss"] = self.weight_loss

        adam = tf.train.AdamOptimizer(learning_rate=self.learning_rate, epsilon=config.epsilon)
        gradients = adam.compute_gradients(self.cost)
        with tf.control_dependencies([self.cost]):  # or the cost could be that of weights half updated
            update = adam.apply_gradients(gradients, self.global_step)
        self.optimizer = tf.group(update, *tf.get_collection(tf.GraphKeys.UPDATE_OPS))
        self.histograms = self._summarize_weights()

    def _summarize_weights(self):
        """A histogram for each layer or block: of all its trained numbers together."""
        scopes = {}
        for variable in tf.trainable_variables():
            scopes.setdefault(variable.op.name.split("/")[0], []).append(tf.reshape(variable, [-1]))
        return tf.summary.merge(
            [tf.summary.histogram(f"weights/{scope}", tf.concat(parts, 0)) for scope, parts in scopes.items()]
        )

    def optimize(self, num_epoch: Optional[int] = None) -> List[dict]:
        """Train for `num_epoch` more epochs (config.num_epoch if not given), validating and saving after each.

        Returns the history, which the file history.csv in the run's folder holds as well, as it grows.

        If it is stopped by Ctrl-C, by SystemExit or by a broken image, what was learned so far is saved first.
        """
        if num_epoch is None:
            num_epoch = self.config.num_epoch
        last_epoch = self.epoch + check("num_epoch", num_epoch)
        self.run_folder = self.run_folder or new_run_folder(self.config.tensorboard_dir, self.config.train_path)
        reporter = Reporter(self.run_folder, self.config, self.graph, self.step)
        try:
            with reporter:
                while self.epoch < last_epoch and not self._out_of_patience():
                    self._train_epoch(reporter, f"epoch {self.epoch + 1}/{last_epoch}")
        except (KeyboardInterrupt, SystemExit, InputError):
            self.save()
            raise
        finally:
            reporter.draw_curves(self.history)
        return list(self.history)

    def _out_of_patience(self):
        """Whether the validation loss has not fallen for config.early_stopping epochs."""
        patience = self.config.early_stopping
        losses = [entry["val_loss"] for entry in self.history]
        if patience is None or len(losses) - np.argmin(losses + [np.inf]) <= patience:
            return False
        print(f"stopped early: validation loss has not fallen for {patience} epochs", flush=True)
        return True

    def _train_epoch(self, reporter, title):
        """Every step of an epoch, then validation, a line of history, and a checkpoint."""
        reporter.start(title, self.data.train.num_examples // self.train_batch_size * self.train_batch_size)
        start = time.time()
        self.val_loss = self.val_acc = None
        results = [self._train_step(batch, reporter) for batch in self.data.train.epoch(self.train_batch_size)]
        seconds = time.time() - start
        loss, acc, _ = map(float, np.mean(results, axis=0, dtype=float))

        self.val_loss, self.val_acc = self.evaluate(self.data.valid)
        self._check_finite(self.val_loss)
        self.epoch += 1
        entry = {"epoch": self.epoch, "loss": loss, "acc": acc, "val_loss": self.val_loss, "val_acc": self.val_acc}
        entry.update(learning_rate=float(results[-1][2]), seconds=time.time() - start)
        self.history.append(entry)
        reporter.epoch(self.step, self.history, seconds, self.session.run(self.histograms))
        self.save()

    def _train_step(self, batch, reporter):
        """One update of the weights; returns the batch's loss and accuracy before it, and its learning rate."""
        _, loss, accuracy, scalars = self.session.run(
            [self.optimizer, self.cost, self.accuracy, self.scalars], {self.x: batch.images, self.y_true: batch.labels}
        )
        self.step += 1
        self._check_finite(loss)
        reporter.step(self.step, batch, loss, accuracy, scalars)
        return loss, accuracy, scalars["learning_rate"]

    def _check_finite(self, loss):
        if not math.isfinite(loss):
            advice = f"setting lr: found {self.lr}, try a smaller one"
            raise FloatingPointError(f"loss: found {loss} at step {self.step}, expected a number; {advice}")

    def evaluate(self, data: DataSet) -> Tuple[float, float]:
        """Mean cross entropy and accuracy of the inference network over every image of a DataSet, each once."""
        results, sizes = [], []
        for batch in data.batches(inference_batch(self.config.img_size)):
            results.append(self.session.run(self.inference, {self.x: batch.images, self.y_true: batch.labels}))
            sizes.append(len(batch.images))
        loss, accuracy = np.average(results, axis=0, weights=sizes)
        return float(loss), float(accuracy)

    def save(self) -> None:
        """Write a checkpoint and its metadata, if anything was learned since the last."""
        self.step = int(self.session.run(self.global_step))  # Ctrl-C may come after a step, but before it is counted
        if self.step == self.saved_step:
            return
        metadata = {"settings": vars(self.config), "run_folder": self.run_folder, "epoch": self.epoch}
        metadata.update(global_step=self.step, val_loss=self.val_loss, val_acc=self.val_acc)
        self.checkpoints.save(self.session, self.saver, f"{self.config.model_arch}-{self.step}", metadata)
        self.saved_step = self.step

    def export(self, last: bool = False) -> str:
        """Freeze the weights of the best epoch to weights/<model_arch>/; returns the path of the .pb file.

        Args:
            last: freeze the weights as they are now instead, as if no epoch was validated.
        """
        self.checkpoints.refresh()
        prefix = None if last else self.checkpoints.best(self.run_folder)
        if prefix and self.history:
            return freeze(*self.checkpoints.load(prefix))
        weights = self.session.run({variable.op.name: variable for variable in self.variables})
        origin = {"val_acc": self.val_acc, "run_folder": self.run_folder, "checkpoint": None}
        return freeze(self.config, weights, origin)

    def _load_pretrained(self):
        """Take over the weights in config.pretrained for variables of the same name and shape; list the others."""
        prefix = find_checkpoint("setting pretrained", self.config.pretrained)
        weights = read_weights("setting pretrained", prefix)
        fitting, others = [], []
        for variable in self.variables:
            fits = np.shape(weights.get(variable.op.name)) == tuple(variable.shape.as_list())
            (fitting if fits else others).append(variable)
        if not fitting:
            expected = f"expected weights of a {self.config.model_arch}"
            raise InputError(f"setting pretrained: found nothing in {self.config.pretrained} that fits, {expected}")
        assign(self.session, fitting, weights)
        names = [variable.op.name for variable in others]
        rest = f", all but {', '.join(names[:4])}{' and others' if len(names) > 4 else ''}" if names else ""
        print(f"weights of {prefix}: took {len(fitting)} of {len(self.variables)} variables{rest}")
        print("with " + ", ".join(f"{name} {getattr(self.config, name)}" for name in INHERITED), flush=True)

    def close(self) -> None:
        """Free the session's memory. The Trainer can do nothing more then."""
        self.session.close()


def classify(logits, labels):
    """(cross entropy of each image, its mean, accuracy) of logits against one-hot labels, both [batch, classes]."""
    cross_entropy = tf.nn.softmax_cross_entropy_with_logits_v2(logits=logits, labels=labels)
    correct = tf.equal(tf.argmax(logits, 1), tf.argmax(labels, 1))
    return cross_entropy, tf.reduce_mean(cross_entropy), tf.reduce_mean(tf.cast(correct, tf.float32))
