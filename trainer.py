"""Trainer: the graph, the session and the training loop.

T = Trainer()
T.optimize(num_epoch=1)
T.export()
"""

import contextlib
import math
import os
import time
from typing import List, Optional, Tuple, Union

import numpy as np

from convert.freeze import freeze
from dataset import DataSet, balanced_weights, describe, read_train_sets
from src.errors import InputError, say
from src.settings import check, settings
from src.signals import HeldSignals
from src.tf1 import describe_device, tf
from utils.checkpoints import load_pretrained, read_weights, readable
from utils.cluster import check_same, join_cluster
from utils.files import locked
from utils.learning import LearningGraph
from utils.loader import inference_batch
from utils.memory import check_memory, explaining_memory
from utils.reporter import Reporter
from utils.runs import check_folders, check_progress, choose_run, delete_old_runs, open_run, write_index


@explaining_memory
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
        self.cluster = join_cluster(settings(**given))
        self.config, self.checkpoints, prefix, progress = choose_run(self.cluster, resume, given)
        self._begin()
        self.data = self.cluster.all_or_none(lambda: self._read_data(progress))
        check_same(self.cluster, self.data)
        with HeldSignals():  # TensorFlow 1.14 swallows what signals raise while a graph is built
            self._build()
        self.cluster.all_or_none(lambda: self._read_weights(prefix))
        with self.graph.as_default():
            self.cluster.broadcast(self.session, tf.global_variables())
        if progress:
            self._restore(prefix, progress)

    def _read_data(self, progress):
        """The data sets, if all is there that this member needs."""
        config, members, self.train_batch_size = self.config, self.cluster.size, self.config.batch_size
        data = read_train_sets(config)
        self.steps = data.train.num_examples // (config.batch_size * members)  # of an epoch
        if not self.steps:
            most = f"{data.train.num_examples // members}, the number of training images{' a member' * (members > 1)}"
            raise InputError(f"setting batch_size: found {config.batch_size}, expected at most {most}")
        if progress:
            check_progress(progress, config, data, self.steps, members)
        if self.cluster.is_chief:
            check_folders(config, members)
        return data

    def _read_weights(self, prefix):
        """Those of a checkpoint, if there are some to begin with."""
        if prefix:
            with readable("checkpoint", prefix):
                self.saver.restore(self.session, prefix)
        elif self.config.pretrained and self.cluster.is_chief:
            load_pretrained(self.session, self.variables, self.config)

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
        config = self.config
        self.lr, self.step_rate, self.decay = float(config.lr), config.step_rate, float(config.decay)
        is_balanced = config.class_weights == "balanced"
        class_weights = balanced_weights(self.data.train.labels, config.classes) if is_balanced else None
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.set_random_seed(config.seed)
            self.learning = learning = LearningGraph(config, class_weights, self.cluster)
            self.saver = tf.train.Saver()
            self.session = self.cluster.open_session(config.device)
            if self.cluster.is_chief:
                say(f"{describe_device(self.session)}\n{describe(self.data, config)}")
            self.cluster.all_or_none(lambda: check_memory(self))
            self.session.run(tf.global_variables_initializer())
        self.model, self.variables, self.inference = learning.model, learning.variables, learning.inference
        self.x, self.y_true, self.global_step = learning.x, learning.y_true, learning.global_step
        self.cross_entropy, self.cost, self.accuracy = learning.cross_entropy, learning.cost, learning.accuracy
        self.optimizer, self.learning_rate = learning.optimizer, learning.learning_rate

    def _restore(self, prefix, progress):
        """Go back to where training was when a checkpoint was written."""
        self.epoch, self.position = progress["epoch"], progress["position"]
        self.sums, self.seconds, self.window = progress["sums"], progress["seconds"], progress["window"]
        self.val_loss, self.val_acc = progress["val_loss"], progress["val_acc"]
        self.history = progress["history"][: self.epoch]
        self.last_rate = progress["learning_rate"]
        self.step = int(self.session.run(self.global_step))
        self.saved, self.last_checkpoint, self.resumed = (self.step, self.epoch), prefix, True
        if self.cluster.is_chief:
            self.run_folder = os.path.join(self.config.tensorboard_dir, os.path.basename(self.checkpoints.folder))
            more = "" if self.epochs_left() else "; a larger --num_epoch goes on"
            say(f"resuming {prefix}: {self.epoch} of {self.config.num_epoch} epochs are done{more}")

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
        with HeldSignals() as self.signals, self._run_of_its_own(), self._make_reporter() as reporter:
            try:
                while not self._is_complete():
                    self._train_epoch(reporter)
                if self.stopped_early and self.cluster.is_chief:
                    say(f"stopped early: validation loss has not fallen for {config.early_stopping} epochs")
            except (KeyboardInterrupt, SystemExit, InputError):
                self.cluster.allow()
                # A second Ctrl-C may come after a step, but before it is counted: then its loss is lost.
                if not self._count_others():
                    self.save(reporter)
                raise
            finally:
                reporter.draw_curves(self.history)
                self.window, self.log_error = reporter.window, reporter.error
        return list(self.history)

    @contextlib.contextmanager
    def _run_of_its_own(self):
        """Within it, the chief has checkpoint_dir for itself, and folders in it and in tensorboard_dir for the run."""
        if not self.cluster.is_chief:
            yield
            return
        config = self.config
        with locked("checkpoint_dir", config.checkpoint_dir):
            self._open_run()
            try:
                yield
            finally:
                if not self.last_checkpoint:
                    self.checkpoints.delete()
            delete_old_runs(config.checkpoint_dir, self.checkpoints.folder, config.keep_runs)

    def _open_run(self):
        run = self.run_folder, self.checkpoints, self.last_checkpoint
        self.run_folder, self.checkpoints = open_run(self.config, *run)

    def _make_reporter(self):
        first = self.step + (self.position < self.steps)  # not if the epoch is done but for its validation
        return Reporter(self.run_folder, self.config, self.graph, self.step, first, self.window)

    def epochs_left(self) -> int:
        """Epochs of config.num_epoch that optimize() would train for."""
        return max(0, self.config.num_epoch - (self.epoch if self.resumed else 0))

    def _is_complete(self):
        """Whether there is no epoch left, or the validation loss has not fallen for config.early_stopping epochs."""
        patience = self.config.early_stopping
        losses = [entry["val_loss"] for entry in self.history]
        self.stopped_early = patience is not None and len(losses) - np.argmin(losses + [np.inf]) > patience
        return self.epoch >= self.last_epoch or self.stopped_early

    def _train_epoch(self, reporter):
        """The steps that an epoch has left, then validation, a line of history, and a checkpoint."""
        batch_size, train, cluster = self.train_batch_size, self.data.train, self.cluster
        title = f"epoch {self.epoch + 1}/{self.last_epoch}"
        reporter.start(title, self.steps, self.position, batch_size * cluster.size)
        start = time.time() - self.seconds
        self.val_loss = self.val_acc = None
        train.go_to(self.epoch)
        cluster.allow_step(self.step + 1)
        for batch in train.epoch(batch_size, self.position, cluster.member, cluster.size):
            stop, save = self._train_step(batch, reporter)
            self.seconds = time.time() - start
            if stop or self.cluster.size == 1:
                self._stop()
            if save:
                self._save_together(reporter)
            cluster.allow_step(self.step + 1)
        cluster.allow()  # as long as it takes
        steps, seconds = self.position, self.seconds
        self.val_loss, self.val_acc = val_loss, val_acc = self.evaluate(self.data.valid)
        self._check_finite(val_loss)
        self.epoch += 1
        entry = {"epoch": self.epoch, "loss": self.sums[0] / steps, "acc": self.sums[1] / steps}
        entry.update(val_loss=val_loss, val_acc=val_acc, learning_rate=self.last_rate, seconds=time.time() - start)
        self.history.append(entry)
        self.position, self.sums, self.seconds = 0, [0.0, 0.0], 0.0
        histograms = self.session.run(self.learning.histograms)
        reporter.epoch(self.step, self.history, seconds, histograms, self._is_complete())
        self._save_together(reporter)

    def _train_step(self, batch, reporter):
        """One update of the weights; loss, accuracy and learning rate are those before it.

        Returns:
            How much it is wished to stop after it, by any member, and to save, by the chief.
        """
        minutes = (time.monotonic() - self.saved_time) / 60
        wishes = [self.signals.is_waiting(), self.cluster.is_chief and minutes > self.config.checkpoint_minutes]
        with self.cluster.losing(f"step {self.step + 1}"):
            loss, accuracy, scalars, wishes = self.learning.step(self.session, batch, wishes)
        self.step += 1
        self.position += 1
        self.last_rate = scalars["learning_rate"]
        self._check_finite(loss)
        self.sums = [self.sums[0] + loss, self.sums[1] + accuracy]
        reporter.step(self.step, batch, loss, accuracy, scalars)
        return wishes

    def _stop(self):
        """Let the signal that waits act. If it is another member that got one, end as after SIGTERM."""
        self.signals.check()
        if self.cluster.size > 1:
            raise SystemExit(143)

    def _save_together(self, reporter):
        """Save, while the other members wait for the chief."""
        self.save(reporter)
        self.cluster.sum([0])

    def _check_finite(self, loss):
        if not math.isfinite(loss):
            self._diverge(f"loss: found {loss}")

    def _diverge(self, found):
        """Numbers have gone wrong: raise FloatingPointError."""
        good = f"last good checkpoint: {self.last_checkpoint or 'none yet'}"
        where = f"at step {self.step}, learning rate {self.last_rate:.4g}"
        advice = f"setting lr: found {self.lr}, try a smaller one"
        raise FloatingPointError(f"{found} {where}, expected a number; {good}; {advice}")

    def evaluate(self, data: DataSet) -> Tuple[float, float]:
        """Mean cross entropy and accuracy of the inference network over every image of a DataSet, each once."""
        totals, cluster = np.zeros(3), self.cluster  # of loss, of hits, of images
        for batch in data.batches(inference_batch(self.config.img_size), cluster.member, cluster.size):
            means = self.session.run(self.inference, {self.x: batch.images, self.y_true: batch.labels})
            totals += len(batch.images) * np.array([*means, 1.0])
            if cluster.size == 1:  # else it could not end alone: it will after the next step
                self.signals.check()
        loss, hits, images = cluster.sum(totals)
        return float(loss / images), float(hits / images)

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
        if not self.session.run(self.learning.finite):
            self._diverge("weights: found some that are no finite numbers")
        if self.cluster.is_chief:
            self._write_checkpoint(reporter)
        self.saved, self.saved_time = (self.step, self.epoch), time.monotonic()

    def _write_checkpoint(self, reporter):
        if reporter:
            reporter.flush()
        elif self.checkpoints is None:  # the steps were done by hand
            self._open_run()
        progress = {"epoch": self.epoch, "position": self.position, "sums": self.sums, "seconds": self.seconds}
        progress.update(window=dict(reporter.window if reporter else self.window))  # as it is now: the record keeps it
        progress.update(learning_rate=self.last_rate, fingerprint=self.data.fingerprint, members=self.cluster.size)
        entry = {"settings": dict(vars(self.config), num_epoch=self.last_epoch), "run_folder": self.run_folder}
        entry.update(epoch=self.epoch, global_step=self.step, progress=progress)
        entry.update(val_loss=self.val_loss, val_acc=self.val_acc)
        name = f"{self.config.model_arch}-{self.step}"
        self.last_checkpoint = self.checkpoints.save(self.session, self.saver, name, entry, self.history)
        write_index(self.config.checkpoint_dir, self.checkpoints)

    def _count_others(self):
        """Count the steps that were done by hand, or not counted for another reason; returns how many there are."""
        others = int(self.session.run(self.global_step)) - self.step
        self.step, self.position = self.step + others, self.position + others
        return others

    def export(self, last: bool = False) -> Optional[str]:
        """Freeze the weights of the best epoch to weights/<model_arch>/; returns the path of the .pb file.

        In a cluster the chief does it; the other members return None.

        Args:
            last: freeze the weights as they are now instead, as if no epoch was validated.
        """
        if not self.cluster.is_chief:
            return None
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
