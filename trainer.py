"""Trainer: the session and the training loop.

T = Trainer()
T.optimize(num_epoch=1)
T.export()
"""

import contextlib
import math
import time
from typing import List, Optional, Tuple, Union

import numpy as np

from convert.export import freeze
from convert.freeze import predictor_of
from dataset import DataSet, balanced_weights, describe, read_train_sets, steps_per_epoch
from src.errors import InputError
from src.settings import SETTINGS, settings_for, validate
from src.signals import HeldSignals
from src.tf1 import describe_device, tf
from utils.checkpoints.manager import reading
from utils.checkpoints.pretrained import load_pretrained
from utils.checkpoints.resume import check_folders, check_state, resolve_run
from utils.checkpoints.run import Run
from utils.cluster.collectives import check_same, join_cluster
from utils.delegate import delegate
from utils.images.loader import inference_batch
from utils.training.graph import Requests, TrainGraph
from utils.training.memory import check_memory, explaining_memory
from utils.training.monitor import NullMonitor, TrainingMonitor
from utils.training.state import TrainState

IN_GRAPH = "model variables inference x y_true cross_entropy cost accuracy optimizer learning_rate global_step"


@delegate("state", "history epoch step val_loss val_acc", "it follows from the training so far")
@delegate("run", "run_folder=folder checkpoints last_checkpoint", "settings such as checkpoint_dir determine it")
@delegate("config", f"train_batch_size=batch_size {' '.join(SETTINGS)}", "use a setting, such as Trainer(lr=0.001)")
@delegate("train_graph", IN_GRAPH, "the graph is finalized; utils/training/optimizer.py builds the optimizer")
@explaining_memory
class Trainer:
    """Trains a network to classify the images in config.train_path. Owns its graph and its session.

    Args:
        resume: True: resume the latest run in checkpoint_dir from its latest valid checkpoint, as if it had never been
            interrupted; or the name of a run. It keeps its settings.
        overrides: settings that differ from src/config.py, such as Trainer(batch_size=64). A resumed run takes only
            num_epoch, the total number of epochs, and others that do not change what it learns.

    Attributes:
        history: a dict for each epoch of the run: epoch (from 1), loss and acc (means over its steps, each before
            its update), val_loss and val_acc (on the whole validation set, after the epoch), learning_rate (of its last
            step), seconds.
        epoch, step: epochs and steps done. A step that you run yourself, in `session`, counts in `step` alone.
        val_loss, val_acc: of the current weights; None if they were not validated.
        state: a TrainState, which a checkpoint stores with the variables.
        run_folder: the folder of the TensorBoard log and the figures; None before the first epoch.
        checkpoints: the CheckpointManager of the run; None before the first epoch.
        log_error: why the log could not be written, which does not stop training; None if it could.
        graph: finalized; add your own operations to a graph of your own, such as the exported one.
        config, data, model, session, x, y_true, cross_entropy, cost, accuracy, optimizer, learning_rate, global_step.

    Raises:
        InputError: an invalid setting, an unusable data set, an unwritable folder, or nothing to resume.
    """

    def __init__(self, resume: Union[bool, str] = False, **overrides):
        self.cluster = join_cluster(settings_for(("model_arch", "cluster_timeout", "device"), overrides))
        self.config, checkpoints, prefix, state = resolve_run(self.cluster, resume, overrides)
        self.cluster.timeout = self.config.cluster_timeout
        self.data = self.cluster.all_or_none(lambda: self._read_data(state))
        check_same(self.cluster, self.data)
        self.state = state or TrainState(self.data.fingerprint, self.cluster.world_size, float(self.config.lr))
        self.run = Run(self.config, checkpoints, prefix)
        self._init_run_state(state is not None)
        with HeldSignals():  # TensorFlow 1.14 swallows what signals raise while a graph is built
            self._build()
        self.cluster.all_or_none(lambda: self._read_weights(prefix))
        self.train_graph.broadcast(self.session)
        if self.resumed:
            more = "" if self.epochs_left() else "; use a larger --num_epoch to train further"
            done = f"{self.epoch} of {self.config.num_epoch} epochs done"
            self.cluster.say(f"resuming {self.last_checkpoint}: {done}{more}")

    def _read_data(self, state):
        """Read the data sets; check them, and the folders that this worker needs."""
        config, workers = self.config, self.cluster.world_size
        data = read_train_sets(config)
        self.steps = steps_per_epoch(data.train.num_examples, config.batch_size, workers)
        if state:
            check_state(state, config, data, self.steps, workers)
        if self.cluster.is_chief:
            check_folders(config, workers)
        return data

    def _read_weights(self, prefix):
        """Restore the checkpoint to resume, or load pretrained weights, if any."""
        if prefix:
            with reading("checkpoint", prefix):
                self.train_graph.saver.restore(self.session, prefix)
        elif self.config.pretrained and self.cluster.is_chief:
            load_pretrained(self.session, self.variables, self.config)

    def _init_run_state(self, resumed):
        self.last_saved, self.last_save_time = (self.step, self.epoch), time.monotonic()
        self.log_error, self._predictor, self.target_epoch = None, ({}, None), self.config.num_epoch
        self.resumed, self.interrupted, self.is_closed = resumed, False, False
        self.signals = HeldSignals()

    def _build(self):
        """Build the graph and open its session."""
        config = self.config
        is_balanced = config.class_weights == "balanced"
        class_weights = balanced_weights(self.data.train.labels, config.classes) if is_balanced else None
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.train_graph = TrainGraph(config, class_weights, self.steps, self.cluster)
            self.session = self.cluster.open_session(config.device)
        self.cluster.say(f"{describe_device(self.session, config.device)}\n{describe(self.data, config)}")
        self.cluster.all_or_none(lambda: check_memory(self))
        self.session.run(self.train_graph.initializer)

    def optimize(self, num_epoch: Optional[int] = None) -> List[dict]:
        """Train for `num_epoch` more epochs, validating and saving after each.

        Args:
            num_epoch: None: config.num_epoch; in a resumed run, or after an interruption, the epochs that remained.

        Returns:
            The history, which is also written to history.csv in the run's folder after each epoch.

        Ctrl-C, SystemExit and a corrupt image stop it after a checkpoint is saved; the next call continues from there.
        """
        config, done = self.config, 0 if self.resumed and num_epoch is None else self.epoch
        if num_epoch is not None or not self.interrupted:
            self.target_epoch = done + validate("num_epoch", config.num_epoch if num_epoch is None else num_epoch)
        self.resumed = self.interrupted = False
        self._sync_step()
        with HeldSignals() as self.signals, self._exclusive_run() as monitor:
            try:
                while not self._is_complete():
                    self._train_epoch(monitor)
                if self.stopped_early:
                    self.cluster.say(f"stopped early: no lower validation loss for {config.early_stopping} epochs")
            except (KeyboardInterrupt, SystemExit, InputError):
                # A second Ctrl-C may come after a step, but before it is counted. Then its loss is lost, and a run
                # resumed from there would not equal an uninterrupted one.
                self.interrupted = True
                if not self._sync_step():
                    self.save(monitor)
                monitor.stopped(self.last_checkpoint)
                raise
            finally:
                monitor.draw_curves()
                self.log_error = monitor.error
        return list(self.history)

    @contextlib.contextmanager
    def _exclusive_run(self):
        """Open the run, if this is the chief, within the block; gives the monitor."""
        if not self.cluster.is_chief:
            yield NullMonitor()
            return
        first = self.step + (self.state.step_in_epoch < self.steps)  # + 0 if only validation is left
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.run.exclusive(self.state))
            monitor = TrainingMonitor(self.run_folder, self.config, self.data, self.graph, self.state, first)
            yield stack.enter_context(monitor)

    def epochs_left(self) -> int:
        """Epochs of config.num_epoch that optimize() would train for."""
        return max(0, self.config.num_epoch - (self.epoch if self.resumed else 0))

    def _is_complete(self):
        """Whether no epoch is left, or the validation loss has not improved for config.early_stopping epochs."""
        patience = self.config.early_stopping
        losses = [entry["val_loss"] for entry in self.history]
        self.stopped_early = patience is not None and len(losses) - np.argmin(losses + [np.inf]) > patience
        return self.epoch >= self.target_epoch or self.stopped_early

    def _train_epoch(self, monitor):
        """Do the remaining steps of an epoch, then validate, and save a checkpoint."""
        state, batch_size, train, cluster = self.state, self.train_batch_size, self.data.train, self.cluster
        monitor.start(f"epoch {self.epoch + 1}/{self.target_epoch}", self.steps, batch_size * cluster.world_size)
        start = time.monotonic() - state.seconds
        train.set_epoch(self.epoch)
        batches = train.epoch(batch_size, state.step_in_epoch, cluster.rank, cluster.world_size)
        while True:
            with cluster.exit_if_peer_lost(f"step {self.step + 1}", self.config.step_timeout):
                batch = next(batches, None)
                if batch is None:
                    break
                requests = self._train_step(batch, monitor)
            state.seconds = time.monotonic() - start
            cluster.check_signals(self.signals, requests.stop)
            if requests.save:
                self._save_and_barrier(monitor)
        self._end_epoch(start, monitor)

    def _train_step(self, batch, monitor):
        """One update of the weights.

        Returns:
            The mean Requests of all workers: above 0 if any worker requested a stop, or the chief a checkpoint.
        """
        minutes = (time.monotonic() - self.last_save_time) / 60
        is_save_due = self.cluster.is_chief and minutes > self.config.checkpoint_minutes
        requests = Requests(stop=self.signals.is_waiting(), save=is_save_due)
        loss, accuracy, scalars, requests = self.train_graph.step(self.session, batch, requests)
        if not math.isfinite(loss):
            self._diverge(f"loss: found {loss}", scalars["learning_rate"])
        self.state.add_step(loss, accuracy, scalars)
        monitor.step(batch, loss, accuracy)
        return requests

    def _end_epoch(self, start, monitor):
        """Validate, report and save after the last step of an epoch that started at that time."""
        seconds = self.state.seconds
        val_loss, val_acc = self.evaluate(self.data.valid)
        if not math.isfinite(val_loss):
            self._diverge(f"loss: found {val_loss}", self.state.learning_rate)
        self._check_variables()
        self.state.end_epoch(val_loss, val_acc, time.monotonic() - start)
        # The epoch is logged before its checkpoint is saved: a run killed in between resumes from the previous one and
        # logs the epoch again. The other way round, it would never be logged. A failing report must not cost the epoch.
        try:
            monitor.epoch(seconds, self.session.run(self.train_graph.histograms), self._is_complete())
        finally:
            self._save_and_barrier(monitor)

    def _save_and_barrier(self, monitor):
        """Save while the other workers wait for the chief."""
        self.save(monitor)
        self.cluster.barrier()

    def _check_variables(self):
        if not self.session.run(self.train_graph.finite):
            self._diverge("weights or Adam's moments: found NaN or Inf", self.state.learning_rate)

    def _diverge(self, found, learning_rate):
        """Raise FloatingPointError, because training has diverged."""
        self._sync_step()  # a step whose loss is NaN is not counted
        good = self.last_checkpoint or "none yet"
        raise FloatingPointError(
            f"{found} at step {self.step}, learning rate {learning_rate:.4g}, expected a finite number; "
            f"last good checkpoint: {good}; setting lr: found {self.lr}, try a smaller one"
        )

    def evaluate(self, data: Optional[DataSet] = None) -> Tuple[float, float]:
        """Mean cross entropy and accuracy of the current weights over all images of a DataSet, each used once.

        Args:
            data: None: data.test, the test images.
        """
        self._check_open()
        data = self.data.test if data is None else data
        if not isinstance(data, DataSet):
            raise InputError("evaluate", repr(data), "a DataSet, such as T.data.valid, or none for the test images")
        totals, cluster = np.zeros(3), self.cluster  # of loss, correct predictions, images
        for batch in data.batches(inference_batch(self.config.img_size), cluster.rank, cluster.world_size):
            means = self.session.run(self.inference, {self.x: batch.images, self.y_true: batch.labels})
            totals += len(batch.images) * np.array([*means, 1.0])
            cluster.check_signals(self.signals)
        loss, correct, images = cluster.all_reduce_sum(totals)
        return float(loss / images), float(correct / images)

    def save(self, monitor: Optional[TrainingMonitor] = None) -> None:
        """Write a checkpoint and its metadata, unless nothing has changed since the last.

        Args:
            monitor: its log is flushed first, so that the curves reach as far as the checkpoint.

        Raises:
            FloatingPointError: a weight is NaN or Inf; nothing is written.
            InputError: the checkpoint cannot be written.
        """
        self._sync_step()
        if (self.step, self.epoch) == self.last_saved:
            return
        self._check_variables()
        if self.cluster.is_chief:
            (monitor or NullMonitor()).flush()
            self.run.save(self.session, self.train_graph.saver, self.state, self.target_epoch)
        self.last_saved, self.last_save_time = (self.step, self.epoch), time.monotonic()

    def _check_open(self):
        if self.is_closed:
            raise InputError("Trainer", "a closed one", "an open one", "Trainer(resume=True) continues its run")

    def _sync_step(self):
        """Set `step` to the value of global_step; returns how many steps were not counted.

        Before optimize() and save(), these are steps that the user ran; within the loop, an interrupted one of its own.
        """
        self._check_open()
        return self.state.sync_step(int(self.session.run(self.global_step)))

    def export(self, last: bool = False) -> Optional[str]:
        """Freeze the weights of the best epoch to weights/<model_arch>/; returns the path of the .pb file.

        In a cluster, only the chief does so; the other workers return None.

        Args:
            last: freeze the current weights instead, as when no epoch was validated.
        """
        return freeze(*self._trained(best=not last)) if self.cluster.is_chief else None

    def predict(self, images, rgb: bool = False, best: bool = False):
        """Classify images with the current weights, as Predictor does with those of an exported graph.

        Args:
            images, rgb: see Predictor, which also says what is returned.
            best: use the weights of the best epoch instead, those that export() freezes.
        """
        config, weights, origin = self._trained(best)
        used, predictor = self._predictor
        if not all(np.array_equal(value, used.get(name)) for name, value in weights.items()):
            predictor = predictor_of(config, weights, origin, f"of {self!r}")
            self._predictor = weights, predictor
        return predictor(images, rgb)

    def _trained(self, best):
        """(settings, weights, origin), as freeze takes them, of the best epoch if there is one, or of the session."""
        prefix = self.checkpoints.best() if best and self.checkpoints else None
        if prefix:
            return self.checkpoints.load(prefix, weight_dir=self.config.weight_dir)
        self._sync_step()
        weights = self.session.run({variable.op.name: variable for variable in self.variables})
        origin = {"val_acc": self.val_acc, "run_folder": self.run_folder, "checkpoint": None}
        return self.config, weights, dict(origin, fingerprint=self.data.fingerprint)

    def __repr__(self):
        parts = [f"{self.epoch} epochs, {self.step} steps", self.run_folder or "not started", str(self.data)]
        return f"<Trainer of {self.config.model_arch}: {'; '.join(parts + ['closed'] * self.is_closed)}>"

    def close(self) -> None:
        """Free the session's memory; the Trainer cannot be used afterwards."""
        self.session.close()
        self.is_closed = True
