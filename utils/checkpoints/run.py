"""The run that a Trainer writes to: its log folder and its checkpoints."""

import contextlib
import os
import shutil

from src.errors import InputError
from utils.checkpoints.manager import CheckpointManager
from utils.checkpoints.run_index import INDEX, delete_old_runs, new_run_folder, write_index
from utils.checkpoints.run_metadata import run_folders
from utils.files import check_replaceable, remove_leftovers
from utils.locks import locked


class Run:
    """The folders of a run; only the chief of a cluster writes to them.

    Args:
        config: settings.
        checkpoints: the CheckpointManager of a run that is resumed; None: a new run, or another worker than the chief.
        last_checkpoint: the prefix of the checkpoint that it is resumed from.

    Attributes:
        folder: of the TensorBoard log and the figures; None before the first epoch.
        checkpoints: None before the first epoch.
        last_checkpoint: the prefix of the checkpoint that was saved last; None if there is none.
    """

    def __init__(self, config, checkpoints, last_checkpoint):
        self._config, self.checkpoints, self.last_checkpoint = config, checkpoints, last_checkpoint
        self.folder = checkpoints and os.path.join(config.tensorboard_dir, os.path.basename(checkpoints.folder))

    @contextlib.contextmanager
    def exclusive(self, state):
        """Open the run, and keep other processes out of checkpoint_dir within the block.

        A run without a checkpoint at its end is deleted; its log folder too, if the TrainState has counted no step.
        """
        config = self._config
        with locked("checkpoint_dir", config.checkpoint_dir):
            self.open()
            try:
                yield
            finally:
                if not self.last_checkpoint:
                    self.checkpoints.delete()
                    if not state.step:
                        shutil.rmtree(self.folder, ignore_errors=True)
            delete_old_runs(config.checkpoint_dir, self.checkpoints.folder, config.keep_runs)

    def open(self):
        """Make the folders of a new run, or continue one from its last checkpoint.

        Deletes what killed processes left in the output folders.
        """
        config = self._config
        check_replaceable(os.path.join(config.checkpoint_dir, INDEX))
        if self.folder is not None and os.path.islink(self.folder):
            raise InputError("setting tensorboard_dir", f"{self.folder}, a symbolic link", "a folder or none")
        folders = [folder for folder in run_folders(config.checkpoint_dir) if not os.path.islink(folder)]
        for folder in [config.checkpoint_dir, config.weight_dir, *folders, *filter(None, [self.folder])]:
            remove_leftovers(folder)
        if self.folder is None:
            self.folder = new_run_folder(config.tensorboard_dir, config.train_path, config.checkpoint_dir)
            self.checkpoints = CheckpointManager(os.path.join(config.checkpoint_dir, os.path.basename(self.folder)))
        if self.last_checkpoint:
            self.checkpoints.truncate_after(self.last_checkpoint)
        else:
            self.checkpoints.create()

    def save(self, session, saver, state, num_epoch):
        """Write a checkpoint of the variables in a session and of a TrainState, and the index of checkpoint_dir.

        Args:
            num_epoch: the total number of epochs to record.
        """
        if self.checkpoints is None:  # all steps were run by the user
            self.open()
        recorded = {"settings": dict(vars(self._config), num_epoch=num_epoch), "run_folder": self.folder}
        name = f"{self._config.model_arch}-{state.step}"
        entry = dict(state.to_json(), **recorded)
        self.last_checkpoint = self.checkpoints.save(session, saver, name, entry, state.history)
        write_index(self._config.checkpoint_dir, self.checkpoints)
