"""Trainer: the graph, the session and the training loop.

T = Trainer()
T.optimize(num_epoch=1)
T.export()
"""

import math
import os
import time
from typing import List, Optional, Tuple, Union

import numpy as np

from convert.freeze import freeze
from dataset import DataSet, balanced_weights, describe, read_train_sets
from models import build, classify, learned_variables
from src.errors import InputError, say
from src.settings import check
from src.signals import HeldSignals
from src.tf1 import describe_device, open_session, tf
from utils.checkpoints import Checkpoints, inherit_settings, load_pretrained, read_weights, readable
from utils.files import locked, make_writable, remove_leftovers
from utils.loader import inference_batch
from utils.reporter import Reporter
from utils.runs import delete_old_runs, find_interrupted, list_runs, write_index
from utils.tensorboard import new_run_folder


class Trainer:
    """Learns to classify the images under config.train_path. Owns its graph and its session.

    Args:
        resume: True: go on with the newest run in checkpoint_dir, from its newest whole checkpoint, as if it had never
            been interrupted; or the name of a run. The settings are those that it had.
        given: settings that differ from src/config.py for this Trainer, such as Trainer(batch_size=64). For a run that
            is resumed: num_epoch, in total, and others that change nothing in what it learns.

    Attributes:
        history: a dict for each epoch of the run: epoch (from 1), loss and acc (means over its steps, each before
            its update), val_loss and val_acc (of the whole validation set, after the epoch), learning_rate (of its last
            step), seconds.
        run_folder: where the TensorBoard log and the pictures are; None before the first epoch.
        checkpoints: those of the run; None before the first epoch.
        log_error: what was wrong when the log could not be written, which ends nothing; None if all is well.
        config, data, model, session, x, y_true, cross_entropy, cost, accuracy, optimizer, learning_rate, global_step.

    Raises:
        InputError: a wrong setting, a data set that cannot be used, a folder that cannot be written to, nothing to
            resume.
    """

    def __init__(self, resume: Union[bool, str] = False, **given):
        self.checkpoints = prefix = None
        if resume:
            self.config, self.checkpoints, prefix = find_interrupted(given, None if resume is True else resume)
        else:
            self.config = inherit_settings(given)
        config = self.config
        self.data = read_train_sets(config)
        self.train_batch_size = config.batch_size
        if self.train_batch_size > self.data.train.num_examples:
            expected = f"expected at most {self.data.train.num_examples}, the number of training images"
            raise InputError(f"setting batch_size: found {self.train_batch_size}, {expected}")
        for setting in ("checkpoint_dir", "weight_dir", "tensorboard_dir"):
            make_writable(setting, getattr(config, setting))
        self._begin()
        with HeldSignals():  # TensorFlow 1.14 swallows what signals raise while a graph is built
            self._build()
        if resume:
            self._restore(prefix)
        elif config.pretrained:
            load_pretrained(self.session, self.variables, config)

    def _begin(self):
        """A run before its first step."""
        self.epoch = 0  # epochs done
        self.position = 0  # steps done in the epoch that is not done yet
        self.sums = [0.0, 0.0]  # over these steps: of loss and accuracy
        self.seconds = 0.0  # that they took
        self.window = {}  # sums of the scalars of the steps that no point of TensorBoard's curves has yet
        self.step = 0  # steps done in all
        self.val_loss = self.val_acc = None  # of the weights as they are now, if they were validated
        self.history = []
        self.last_rate = float(self.config.lr)
        self.saved = (0, 0)  # step and epoch of the last checkpoint
        self.saved_time = time.monotonic()
        self.last_checkpoint = None
        self.last_epoch = self.config.num_epoch
        self.resumed = False
        self.signals = HeldSignals()
        self.run_folder = None
        self.log_error = None

    def _build(self):
        """The graph and its session."""
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(self.config.seed)
            self._build_networks()
            self._build_optimizer()
            self.saver = tf.train.Saver()
            self.session = open_session(self.config.device)
            say(f"{describe_device(self.session)}\n{describe(self.data, self.config)}")
            self.session.run(tf.global_variables_initializer())

    def _restore(self, prefix):
        """Go back to where training was when a checkpoint was written."""
        entry = self.checkpoints.entry(prefix)
        progress = entry["progress"]
        if progress["fingerprint"] != self.data.fingerprint:
            expected = f"expected the same as when {self.checkpoints.folder} began"
            folders = " or ".join(filter(None, [self.config.train_path, self.config.valid_path]))
            raise InputError(f"setting train_path or valid_path: found other images in {folders}, {expected}")
        if progress["position"] > self.data.train.num_examples // self.train_batch_size:
            raise InputError(f"checkpoint {prefix}: found {progress['position']} steps of an epoch, expected fewer")
        with readable("checkpoint", prefix):
            self.saver.restore(self.session, prefix)
        self.epoch, self.position = progress["epoch"], progress["position"]
        self.sums, self.seconds, self.window = progress["sums"], progress["seconds"], progress["window"]
        self.val_loss, self.val_acc = entry["val_loss"], entry["val_acc"]
        self.history = self.checkpoints.history[: self.epoch]
        self.last_rate = progress["learning_rate"]
        self.step = int(self.session.run(self.global_step))
        self.saved, self.last_checkpoint, self.resumed = (self.step, self.epoch), prefix, True
        self.run_folder = os.path.join(self.config.tensorboard_dir, os.path.basename(self.checkpoints.folder))
        more = "" if self.epochs_left() else "; a larger --num_epoch goes on"
        say(f"resuming {prefix}: {self.epoch} of {self.config.num_epoch} epochs are done{more}")

    def _build_networks(self):
        """The network that learns, and one for inference on the same input, which shares its variables."""
        config = self.config
        # The frozen part of a network is as in inference: batch norm by the moving statistics, which stay as they are.
        self.model = build(config, is4Train=config.train_layers == "all")
        self.variables = tf.global_variables()  # those of the model: what is learned and the moving statistics
        self.learned = learned_variables(config.train_layers)
        self.x = self.model.getInput()
        self.y_true = tf.placeholder(tf.float32, [None, config.total_class], name="y_true")
        with tf.name_scope("inference"):
            eval_model = build(config, is4Train=False, image=self.x)
            self.inference = classify(eval_model.getOutput(), self.y_true)[1:]
        self.cross_entropy, self.cost, self.accuracy = classify(self.model.getOutput(), self.y_true)
        if config.class_weights == "balanced":
            weights = tf.constant(balanced_weights(self.data.train.labels, config.classes))
            self.cost = tf.reduce_mean(self.cross_entropy * tf.reduce_sum(self.y_true * weights, 1))

    def _build_optimizer(self):
        config = self.config
        self.lr, self.step_rate, self.decay = float(config.lr), config.step_rate, float(config.decay)
        self.global_step = tf.train.get_or_create_global_step()
        self.learning_rate = tf.train.exponential_decay(
            self.lr, self.global_step, self.step_rate, self.decay, staircase=True
        )
        self.scalars = {"learning_rate": self.learning_rate}  # to log beside loss and accuracy
        if config.weight_decay:
            kernels = [variable for variable in self.learned if variable.op.name.endswith("kernel")]
            self.weight_loss = config.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in kernels])
            self.cost += self.weight_loss
            self.scalars["weight_loss"] = self.weight_loss

        adam = tf.train.AdamOptimizer(learning_rate=self.learning_rate, epsilon=config.epsilon)
        gradients = adam.compute_gradients(self.cost, self.learned)
        with tf.control_dependencies([self.cost]):  # or the cost could be that of weights half updated
            update = adam.apply_gradients(gradients, self.global_step)
        self.optimizer = tf.group(update, *tf.get_collection(tf.GraphKeys.UPDATE_OPS))
        floats = [variable for variable in tf.global_variables() if variable.dtype.is_floating]
        self.finite = tf.reduce_all([tf.reduce_all(tf.is_finite(variable)) for variable in floats])
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
        """Train for `num_epoch` more epochs, validating and saving after each.

        Without `num_epoch`, for config.num_epoch; of a run that is resumed, for those that are left of them.

        Returns the history, which the file history.csv in the run's folder holds as well, as it grows.

        If it is stopped by Ctrl-C, by SystemExit or by a broken image, what was learned so far is saved first. Called
        again, it goes on from there.
        """
        config, done = self.config, 0 if self.resumed and num_epoch is None else self.epoch
        self.last_epoch = done + check("num_epoch", config.num_epoch if num_epoch is None else num_epoch)
        self.resumed = False
        with locked("checkpoint_dir", config.checkpoint_dir), HeldSignals() as self.signals:
            self._make_folders()
            is_epoch_trained = self.position == self.data.train.num_examples // self.train_batch_size
            first = self.step + (not is_epoch_trained)
            with Reporter(self.run_folder, config, self.graph, self.step, first, self.window) as reporter:
                try:
                    while not self._is_complete():
                        self._train_epoch(reporter)
                    if self.stopped_early:
                        say(f"stopped early: validation loss has not fallen for {self.config.early_stopping} epochs")
                except (KeyboardInterrupt, SystemExit, InputError):
                    # A second Ctrl-C may come after a step, but before it is counted: then its loss is lost.
                    if not self._count_others():
                        self.save(reporter)
                    raise
                finally:
                    reporter.draw_curves(self.history)
                    self.window, self.log_error = reporter.window, reporter.error
                    if not self.last_checkpoint:
                        self.checkpoints.delete()
            delete_old_runs(config.checkpoint_dir, self.checkpoints.folder, config.keep_runs)
        return list(self.history)

    def epochs_left(self) -> int:
        """Epochs of config.num_epoch that optimize() would train for."""
        return max(0, self.config.num_epoch - (self.epoch if self.resumed else 0))

    def _make_folders(self):
        """The folders of the run, and none of what killed processes have left in those beside them."""
        config = self.config
        folders = [run.folder for run in list_runs(config.checkpoint_dir)]
        for folder in [config.checkpoint_dir, config.weight_dir, *folders]:
            remove_leftovers(folder)
        if self.run_folder is None:
            self.run_folder = new_run_folder(config.tensorboard_dir, config.train_path, config.checkpoint_dir)
            self.checkpoints = Checkpoints(os.path.join(config.checkpoint_dir, os.path.basename(self.run_folder)))
        if self.last_checkpoint:
            self.checkpoints.go_on_from(self.last_checkpoint)
        else:
            self.checkpoints.begin()

    def _is_complete(self):
        """Whether there is no epoch left, or the validation loss has not fallen for config.early_stopping epochs."""
        patience = self.config.early_stopping
        losses = [entry["val_loss"] for entry in self.history]
        self.stopped_early = patience is not None and len(losses) - np.argmin(losses + [np.inf]) > patience
        return self.epoch >= self.last_epoch or self.stopped_early

    def _train_epoch(self, reporter):
        """The steps that an epoch has left, then validation, a line of history, and a checkpoint."""
        batch_size, train, title = self.train_batch_size, self.data.train, f"epoch {self.epoch + 1}/{self.last_epoch}"
        reporter.start(title, train.num_examples // batch_size * batch_size, self.position * batch_size)
        start = time.time() - self.seconds
        self.val_loss = self.val_acc = None
        train.go_to(self.epoch)
        for batch in train.epoch(batch_size, self.position):
            self._train_step(batch, reporter)
            self.seconds = time.time() - start
            self.signals.check()
            if time.monotonic() - self.saved_time > 60 * self.config.checkpoint_minutes:
                self.save(reporter)
        steps, seconds = self.position, self.seconds
        self.val_loss, self.val_acc = val_loss, val_acc = self.evaluate(self.data.valid)
        self._check_finite(val_loss)
        self.epoch += 1
        entry = {"epoch": self.epoch, "loss": self.sums[0] / steps, "acc": self.sums[1] / steps}
        entry.update(val_loss=val_loss, val_acc=val_acc, learning_rate=self.last_rate, seconds=time.time() - start)
        self.history.append(entry)
        self.position, self.sums, self.seconds = 0, [0.0, 0.0], 0.0
        reporter.epoch(self.step, self.history, seconds, self.session.run(self.histograms), self._is_complete())
        self.save(reporter)

    def _train_step(self, batch, reporter):
        """One update of the weights; loss, accuracy and learning rate are those before it."""
        _, loss, accuracy, scalars = self.session.run(
            [self.optimizer, self.cost, self.accuracy, self.scalars], {self.x: batch.images, self.y_true: batch.labels}
        )
        self.step += 1
        self.position += 1
        self.last_rate = float(scalars["learning_rate"])
        self._check_finite(loss)
        self.sums = [self.sums[0] + float(loss), self.sums[1] + float(accuracy)]
        reporter.step(self.step, batch, float(loss), float(accuracy), scalars)

    def _check_finite(self, loss):
        if not math.isfinite(loss):
            self._stop(f"loss: found {loss}")

    def _stop(self, found):
        """Numbers have gone wrong: raise FloatingPointError."""
        good = f"last good checkpoint: {self.last_checkpoint or 'none yet'}"
        where = f"at step {self.step}, learning rate {self.last_rate:.4g}"
        advice = f"setting lr: found {self.lr}, try a smaller one"
        raise FloatingPointError(f"{found} {where}, expected a number; {good}; {advice}")

    def evaluate(self, data: DataSet) -> Tuple[float, float]:
        """Mean cross entropy and accuracy of the inference network over every image of a DataSet, each once."""
        results, sizes = [], []
        for batch in data.batches(inference_batch(self.config.img_size)):
            results.append(self.session.run(self.inference, {self.x: batch.images, self.y_true: batch.labels}))
            sizes.append(len(batch.images))
            self.signals.check()
        loss, accuracy = np.average(results, axis=0, weights=sizes)
        return float(loss), float(accuracy)

    def save(self, reporter: Optional[Reporter] = None) -> None:
        """Write a checkpoint and its metadata, if anything was learned since the last.

        Args:
            reporter: whose log is flushed first, so that its curves reach as far as the checkpoint.

        Raises:
            FloatingPointError: a weight is no finite number; nothing is then written.
            InputError: it cannot be written.
        """
        self._count_others()
        if (self.step, self.epoch) == self.saved:
            return
        if not self.session.run(self.finite):
            self._stop("weights: found some that are no finite numbers")
        if reporter:
            reporter.flush()
        elif self.checkpoints is None:  # the steps were done by hand
            self._make_folders()
        progress = {"epoch": self.epoch, "position": self.position, "sums": self.sums, "seconds": self.seconds}
        progress.update(window=dict(reporter.window if reporter else self.window))  # as it is now: the record keeps it
        progress.update(learning_rate=self.last_rate, fingerprint=self.data.fingerprint)
        entry = {"settings": dict(vars(self.config), num_epoch=self.last_epoch), "run_folder": self.run_folder}
        entry.update(epoch=self.epoch, global_step=self.step, progress=progress)
        entry.update(val_loss=self.val_loss, val_acc=self.val_acc)
        name = f"{self.config.model_arch}-{self.step}"
        self.last_checkpoint = self.checkpoints.save(self.session, self.saver, name, entry, self.history)
        write_index(self.config.checkpoint_dir, self.checkpoints)
        self.saved, self.saved_time = (self.step, self.epoch), time.monotonic()

    def _count_others(self):
        """Count the steps that were done by hand, or not counted for another reason; returns how many there are."""
        others = int(self.session.run(self.global_step)) - self.step
        self.step, self.position = self.step + others, self.position + others
        return others

    def export(self, last: bool = False) -> str:
        """Freeze the weights of the best epoch to weights/<model_arch>/; returns the path of the .pb file.

        Args:
            last: freeze the weights as they are now instead, as if no epoch was validated.
        """
        prefix = None if last or self.checkpoints is None else self.checkpoints.best()
        if prefix:
            config = self.checkpoints.settings_of(prefix, weight_dir=self.config.weight_dir)
            return freeze(config, read_weights("checkpoint", prefix), self.checkpoints.origin(prefix))
        weights = self.session.run({variable.op.name: variable for variable in self.variables})
        origin = {"val_acc": self.val_acc, "run_folder": self.run_folder, "checkpoint": None}
        return freeze(self.config, weights, origin)

    def close(self) -> None:
        """Free the session's memory. The Trainer can do nothing more then."""
        self.session.close()
