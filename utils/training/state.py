"""The state of training other than the variables, which a checkpoint stores so that a run resumes exactly."""

from src.errors import InputError

MAX_SHOWN = 40  # characters of an invalid value
MAX_INT64 = 2**63 - 1


def is_count(value):
    return type(value) is int and 0 <= value <= MAX_INT64


def is_finite(value):
    """Whether it is a number that fits a float: JSON may hold NaN, Infinity and integers of any length."""
    return type(value) in (int, float) and -1e300 <= value <= 1e300


def is_amount(value):
    return is_finite(value) and value >= 0


def are_sums(value):
    """Whether it is valid as TrainState.running_sums, whose names are written to the log."""
    return isinstance(value, dict) and (
        value == {}
        or all(name.isprintable() and is_finite(number) for name, number in value.items())
        and value.get("steps", 0) >= 1
    )


def is_exactly(number):
    return lambda value: type(value) is int and value == number


COUNT = is_count, "a whole number, 0 or more"
AMOUNT = is_amount, "a number, 0 or more"
FINITE = is_finite, "a finite number"
RESULT = (lambda value: value is None or is_finite(value)), "a finite number or null"
# Fields of an entry of run.json: (whether a value is valid, what is expected).
ENTRY_RULES = {"global_step": COUNT, "val_loss": RESULT, "val_acc": RESULT}
PROGRESS_RULES = {
    "epoch": COUNT,
    "position": COUNT,
    "sums": (
        lambda value: isinstance(value, list) and len(value) == 2 and is_finite(value[0]) and is_amount(value[1]),
        "two finite numbers",
    ),
    "seconds": AMOUNT,
    "window": (are_sums, "finite numbers by name, and 1 or more steps"),
    "learning_rate": AMOUNT,
    "fingerprint": (lambda value: isinstance(value, str), "a checksum"),
    "members": (lambda value: is_count(value) and value > 0, "a whole number, 1 or more"),
}  # fmt: skip
HISTORY_RULES = dict.fromkeys(("loss", "acc", "val_loss", "val_acc", "learning_rate", "seconds"), FINITE)


class TrainState:
    """All that must survive a kill, other than the variables, with the counters of Trainer's loop.

    A step that the user runs in Trainer.session belongs to no epoch: it counts in `step` alone.

    Args:
        fingerprint: checksum of the images, as DataSets.fingerprint.
        world_size: number of workers, `members` in run.json.
        learning_rate: of the first step.

    Attributes:
        history: as Trainer.history; a new list after each epoch.
        step: steps done in total, the value of the variable global_step.
        step_in_epoch: steps done in the current epoch.
        loss_sum, accuracy_sum: over these steps.
        seconds: that these steps took.
        val_loss, val_acc: of the current variables; None if they were not validated.
        learning_rate: of the last step.
        running_sums: {tag: sum of a scalar over the steps since the last point of the training curves}, with their
            number as "steps"; {} if there are none. Each step makes a new dict, so that saved ones do not change.
    """

    def __init__(self, fingerprint, world_size, learning_rate):
        self.fingerprint, self.world_size, self.learning_rate = fingerprint, world_size, learning_rate
        self.history, self.running_sums = [], {}
        self.step = self.step_in_epoch = 0
        self.loss_sum = self.accuracy_sum = self.seconds = 0.0
        self.val_loss = self.val_acc = None

    @property
    def epoch(self):
        """Epochs done."""
        return len(self.history)

    def has_begun(self):
        """Whether there was a step that belongs to an epoch."""
        return bool(self.history or self.step_in_epoch)

    def add_step(self, loss, accuracy, scalars):
        """Count a step, with loss, accuracy and {tag: other scalars}, such as "learning_rate", before its update."""
        sums = dict(self.running_sums)
        for tag, value in dict(scalars, train_loss=loss, train_acc=accuracy, steps=1).items():
            sums[tag] = sums.get(tag, 0.0) + float(value)
        # A single call, so that no signal handler can run in between: a step is counted completely or not at all.
        vars(self).update(
            step=self.step + 1, step_in_epoch=self.step_in_epoch + 1, loss_sum=self.loss_sum + loss,
            accuracy_sum=self.accuracy_sum + accuracy, val_loss=None, val_acc=None,
            learning_rate=scalars["learning_rate"], running_sums=sums,
        )  # fmt: skip

    def sync_step(self, global_step):
        """Set `step` to the value of global_step; returns how many steps were not counted. They belong to no epoch, but
        changed the variables, so the validation results no longer hold."""
        uncounted = global_step - self.step
        if uncounted:
            vars(self).update(step=global_step, val_loss=None, val_acc=None)
        return uncounted

    def take_means(self):
        """{tag: mean over the steps since the last point of the training curves}; resets the running sums."""
        sums, self.running_sums = dict(self.running_sums), {}
        steps = sums.pop("steps", None)
        return {tag: total / steps for tag, total in sums.items()}

    def end_epoch(self, val_loss, val_acc, seconds):
        """Add an epoch to the history, with its validation results and duration, in one call as in add_step."""
        entry = {"epoch": self.epoch + 1, "loss": self.loss_sum / self.step_in_epoch}
        entry.update(acc=self.accuracy_sum / self.step_in_epoch, val_loss=val_loss, val_acc=val_acc)
        entry.update(learning_rate=self.learning_rate, seconds=seconds)
        vars(self).update(
            history=[*self.history, entry], step_in_epoch=0, loss_sum=0.0, accuracy_sum=0.0, seconds=0.0,
            val_loss=val_loss, val_acc=val_acc,
        )  # fmt: skip

    def to_json(self):
        """Its fields in an entry of run.json; the history is stored beside the entries."""
        progress = {"epoch": self.epoch, "position": self.step_in_epoch, "sums": [self.loss_sum, self.accuracy_sum]}
        progress.update(seconds=self.seconds, window=self.running_sums, learning_rate=self.learning_rate)
        progress.update(fingerprint=self.fingerprint, members=self.world_size)
        results = {"val_loss": self.val_loss, "val_acc": self.val_acc}
        return dict(results, epoch=self.epoch, global_step=self.step, progress=progress)

    @classmethod
    def from_json(cls, entry, history, source):
        """The state in an entry of run.json, with the history stored beside it; neither is trusted.

        Args:
            source: names them in errors.

        Raises:
            InputError: a field is missing or invalid.
        """
        check_fields(entry, ENTRY_RULES, source)
        progress = entry.get("progress")
        progress = dict({"members": 1}, **progress) if isinstance(progress, dict) else progress
        check_fields(progress, PROGRESS_RULES, f"{source}, progress")
        epoch = progress["epoch"]
        if epoch > len(history):
            raise InputError(f"{source}, progress", f"{epoch} as epoch", f"at most {len(history)}")
        for number, line in enumerate(history[:epoch], 1):
            rules = dict(HISTORY_RULES, epoch=(is_exactly(number), number))
            check_fields(line, rules, f"{source}, epoch {number} of the history")
        state = cls(progress["fingerprint"], progress["members"], float(progress["learning_rate"]))
        state.history, state.step, state.step_in_epoch = history[:epoch], entry["global_step"], progress["position"]
        state.loss_sum, state.accuracy_sum = map(float, progress["sums"])
        state.seconds, state.running_sums = float(progress["seconds"]), progress["window"]
        state.val_loss, state.val_acc = entry["val_loss"], entry["val_acc"]
        return state


def check_fields(found, rules, source):
    """Raise InputError unless `found` is a dict whose fields satisfy the rules."""
    if not isinstance(found, dict):
        raise InputError(source, repr(found)[:MAX_SHOWN], ", ".join(rules))
    for name, (is_valid, expected) in rules.items():
        if not is_valid(found.get(name)):
            raise InputError(source, f"{repr(found.get(name))[:MAX_SHOWN]} as {name}", expected)


def best_entry(entries):
    """Of dicts with val_acc and val_loss, the one with the highest accuracy; None if none was validated.

    Ties go to the lower loss, then to the earlier entry.
    """
    validated = [entry for entry in entries if None not in (entry["val_acc"], entry["val_loss"])]
    return max(validated, key=lambda entry: (entry["val_acc"], -entry["val_loss"])) if validated else None
