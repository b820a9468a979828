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

from convert.export import freeze
from dataset import DataSet, balanced_weights, describe, read_train_sets
from src.console import say
from src.errors import ExitCode, InputError
from src.settings import settings_for, validate
from src.signals import HeldSignals
from src.tf1 import describe_device, tf
from utils.checkpoints import readable
from utils.cluster import check_same, join_cluster
from utils.images.loader import inference_batch
from utils.learning import LearningGraph
from utils.locks import locked
from utils.memory import check_memory, explaining_memory
from utils.pretrained import load_pretrained
from utils.reporter import Reporter
from utils.runs import check_folders, check_state, choose_run, delete_old_runs, discard_run, open_run, write_index
from utils.state import TrainState


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
        epoch, step: epochs and steps done. A step of your own, in `session`, counts in `step` alone.
        val_loss, val_acc: of the weights as they are now; None if they were not validated.
        state: a TrainState, what a checkpoint records beside the variables.
        run_folder: where the TensorBoard log and the pictures are; None before the first epoch.
        checkpoints: those of the run; None before the first epoch.
        log_error: what was wrong when the log could not be written, which ends nothing; None if all is well.
        config, data, model, session, x, y_true, cross_entropy, cost, accuracy, optimizer, learning_rate, global_step.

    Raises:
        InputError: a wrong setting, a data set that cannot be used, a folder that cannot be written to, nothing to
            resume.
    """

    history = property(lambda self: self.state.history)
    epoch = property(lambda self: self.state.epoch)
    step = property(lambda self: self.state.step)
    val_loss = property(lambda self: self.state.val_loss)
    val_acc = property(lambda self: self.state.val_acc)

    def __init__(self, resume: Union[bool, str] = False, **given):
        self.cluster = join_cluster(settings_for(("model_arch", "cluster_timeout", "step_timeout"), given))
        self.config, self.checkpoints, prefix, state = choose_run(self.cluster, resume, given)
        self.data = self.cluster.all_or_none(lambda: self._read_data(state))
        check_same(self.cluster, self.data)
        self.state = state or TrainState(self.data.fingerprint, self.cluster.size, float(self.config.lr))
        self._begin()
        with HeldSignals():  # TensorFlow 1.14 swallows what signals raise while a graph is built
            self._build()
        self.cluster.all_or_none(lambda: self._read_weights(prefix))
        with self.graph.as_default():
            self.cluster.broadcast(self.session, tf.global_variables())
        if state:
            self._resume(prefix)

    def _read_data(self, state):
        """The data sets, if all is there that this member needs."""
        config, members, self.train_batch_size = self.config, self.cluster.size, self.config.batch_size
        data = read_train_sets(config)
        self.steps = data.train.num_examples // (config.batch_size * members)  # of an epoch
        if not self.steps:
            most = f"{data.train.num_examples // members}, the number of training images{' a member' * (members > 1)}"
            raise InputError(f"setting batch_size: found {config.batch_size}, expected at most {most}")
        if state:
            check_state(state, config, data, self.steps, members)
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
        """Before the first step of this Trainer."""
        self.last_saved = (self.step, self.epoch)
        self.last_save_time = time.monotonic()
        self.last_checkpoint = None
        self.target_epoch = self.config.num_epoch
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

    def _resume(self, prefix):
        """Go on with the run of a checkpoint."""
        self.last_checkpoint, self.resumed = prefix, True
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
        self.target_epoch = done + validate("num_epoch", config.num_epoch if num_epoch is None else num_epoch)
        self.resumed = False
        self.cluster.config = config  # not that of another Trainer
        self._sync_step()
        with HeldSignals() as self.signals, self._run_of_its_own(), self._make_reporter() as reporter:
            try:
                while not self._is_complete():
                    self._train_epoch(reporter)
                if self.stopped_early and self.cluster.is_chief:
                    say(f"stopped early: validation loss has not fallen for {config.early_stopping} epochs")
            except (KeyboardInterrupt, SystemExit, InputError):
                self.cluster.allow()
                # A second Ctrl-C may come after a step of the epoch, but before it is counted: then its loss is lost,
                # and a run that is resumed after it would not end as one that was never interrupted.
                if not self._sync_step():
                    self.save(reporter)
                raise
            finally:
                reporter.draw_curves()
                self.log_error = reporter.error
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
                    discard_run(self.checkpoints, None if self.step else self.run_folder)
            delete_old_runs(config.checkpoint_dir, self.checkpoints.folder, config.keep_runs)

    def _open_run(self):
        run = self.run_folder, self.checkpoints, self.last_checkpoint
        self.run_folder, self.checkpoints = open_run(self.config, *run)

    def _make_reporter(self):
        first = self.step + (self.state.step_in_epoch < self.steps)  # not if the epoch is done but for its validation
        return Reporter(self.run_folder, self.config, self.data, self.graph, self.state, first)

    def epochs_left(self) -> int:
        """Epochs of config.num_epoch that optimize() would train for."""
        return max(0, self.config.num_epoch - (self.epoch if self.resumed else 0))

    def _is_complete(self):
        """Whether there is no epoch left, or the validation loss has not fallen for config.early_stopping epochs."""
        patience = self.config.early_stopping
        losses = [entry["val_loss"] for entry in self.history]
        self.stopped_early = patience is not None and len(losses) - np.argmin(losses + [np.inf]) > patience
        return self.epoch >= self.target_epoch or self.stopped_early

    def _train_epoch(self, reporter):
        """The steps that an epoch has left, then validation, a line of history, and a checkpoint."""
        state, batch_size, train, cluster = self.state, self.train_batch_size, self.data.train, self.cluster
        reporter.start(f"epoch {self.epoch + 1}/{self.target_epoch}", self.steps, batch_size * cluster.size)
        start = time.monotonic() - state.seconds
        train.go_to(self.epoch)
        cluster.allow_step(self.step + 1)
        for batch in train.epoch(batch_size, state.step_in_epoch, cluster.member, cluster.size):
            stop, save = self._train_step(batch, reporter)
            state.seconds = time.monotonic() - start
            if stop or cluster.size == 1:
                self._stop()
            if save:
                self._save_together(reporter)
            cluster.allow_step(self.step + 1)
        cluster.allow()  # as long as it takes
        self._end_epoch(start, reporter)

    def _train_step(self, batch, reporter):
        """One update of the weights; loss, accuracy and learning rate are those before it.

        Returns:
            How much it is wished to stop after it, by any member, and to save, by the chief.
        """
        minutes = (time.monotonic() - self.last_save_time) / 60
        wishes = [self.signals.is_waiting(), self.cluster.is_chief and minutes > self.config.checkpoint_minutes]
        with self.cluster.losing(f"step {self.step + 1}"):
            loss, accuracy, scalars, wishes = self.learning.step(self.session, batch, wishes)
        if not math.isfinite(loss):
            self._diverge(f"loss: found {loss}", scalars["learning_rate"])
        self.state.add_step(loss, accuracy, scalars)
        reporter.step(batch, loss, accuracy)
        return wishes

    def _end_epoch(self, start, reporter):
        """What follows the last step of an epoch that began at that time."""
        seconds = self.state.seconds
        val_loss, val_acc = self.evaluate(self.data.valid)
        if not math.isfinite(val_loss):
            self._diverge(f"loss: found {val_loss}", self.state.learning_rate)
        self._check_variables()
        self.state.end_epoch(val_loss, val_acc, time.monotonic() - start)
        # The points of the epoch come before its checkpoint: a run killed in between is resumed from the one before,
        # and forgets them. After it, they would be missing for ever. But a report that fails must not cost the epoch.
        try:
            reporter.epoch(seconds, self.session.run(self.learning.histograms), self._is_complete())
        finally:
            self._save_together(reporter)

    def _stop(self):
        """Let the signal that waits act. If it is another member that got one, end as after SIGTERM."""
        self.signals.check()
        if self.cluster.size > 1:
            raise SystemExit(ExitCode.TERMINATED)

    def _save_together(self, reporter):
        """Save, while the other members wait for the chief."""
        self.save(reporter)
        self.cluster.sum([0])

    def _check_variables(self):
        if not self.session.run(self.learning.finite):
            self._diverge("weights or Adam's moments: found NaN or Inf", self.state.learning_rate)

    def _diverge(self, found, learning_rate):
        """Numbers have gone wrong: raise FloatingPointError."""
        self._sync_step()  # a step whose loss is NaN is not counted
        good = f"last good checkpoint: {self.last_checkpoint or 'none yet'}"
        where = f"at step {self.step}, learning rate {learning_rate:.4g}"
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
            FloatingPointError: a weight is NaN or Inf; nothing is then written.
            InputError: it cannot be written.
        """
        self._sync_step()
        if (self.step, self.epoch) == self.last_saved:
            return
        self._check_variables()
        if self.cluster.is_chief:
            self._write_checkpoint(reporter)
        self.last_saved, self.last_save_time = (self.step, self.epoch), time.monotonic()

    def _write_checkpoint(self, reporter):
        if reporter:
            reporter.flush()
        elif self.checkpoints is None:  # the steps were done by hand
            self._open_run()
        recorded = {"settings": dict(vars(self.config), num_epoch=self.target_epoch), "run_folder": self.run_folder}
        name = f"{self.config.model_arch}-{self.step}"
        entry = dict(self.state.to_json(), **recorded)
        self.last_checkpoint = self.checkpoints.save(self.session, self.saver, name, entry, self.history)
        write_index(self.config.checkpoint_dir, self.checkpoints)

    def _sync_step(self):
        """Let `step` be what the variable global_step says; returns how many steps were not counted.

        Before optimize() and save(), they were done by hand. Within the loop, it is one of its own.
        """
        return self.state.sync_step(int(self.session.run(self.global_step)))

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
            return freeze(*self.checkpoints.load(prefix, weight_dir=self.config.weight_dir))
        self._sync_step()
        weights = self.session.run({variable.op.name: variable for variable in self.variables})
        origin = {"val_acc": self.val_acc, "run_folder": self.run_folder, "checkpoint": None}
        return freeze(self.config, weights, origin)

    def close(self) -> None:
        """Free the session's memory. The Trainer can do nothing more then."""
        self.session.close()
