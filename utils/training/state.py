"""What a training has done so far, beside its variables: what a checkpoint records so that a run resumes exactly."""

from src.errors import InputError

SHOWN = 40  # characters of a wrong value
LARGEST = 2**63 - 1  # of TensorFlow's int64, such as global_step


def is_count(value):
    return type(value) is int and 0 <= value <= LARGEST


def is_finite(value):
    """Whether it is a number that a float can hold: files may have NaN, Infinity and integers of any length."""
    return type(value) in (int, float) and -1e300 <= value <= 1e300


def is_amount(value):
    return is_finite(value) and value >= 0


def are_sums(value):
    """Whether it can be TrainState.running_sums. Their names go into a log, which not every text can."""
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
# Fields of an entry of run.json: whether a value can be right, and what it is to be.
ENTRY = {"global_step": COUNT, "val_loss": RESULT, "val_acc": RESULT}
PROGRESS = {
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
HISTORY = dict.fromkeys(("loss", "acc", "val_loss", "val_acc", "learning_rate", "seconds"), FINITE)  # of each epoch


class TrainState:
    """The one place for all that must survive a kill, beside the variables. It counts what Trainer's loop does.

    A step that is done by hand, in Trainer.session, belongs to no epoch: it counts in `step` alone.

    Args:
        fingerprint: checksum of the images, as that of DataSets.
        world_size: processes that train together, `members` in run.json.
        learning_rate: that of the first step.

    Attributes:
        history: as Trainer.history; a new list after each epoch.
        step: steps done in all, as the variable global_step says.
        step_in_epoch: steps done in the epoch that is not complete.
        loss_sum, accuracy_sum: over these steps.
        seconds: that these steps took.
        val_loss, val_acc: of the variables as they are now; None if they were not validated.
        learning_rate: of the last step.
        running_sums: {tag: sum of a scalar over the steps since the last point of the training curves}, their number
            under "steps"; {} if there are none. A new dict after each step: what was recorded stays as it was.
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
        """Whether there is a step that belongs to an epoch."""
        return bool(self.history or self.step_in_epoch)

    def add_step(self, loss, accuracy, scalars):
        """Count a step: loss and accuracy before its update, and {tag: other scalars}, "learning_rate" among them."""
        sums = dict(self.running_sums)
        for tag, value in dict(scalars, train_loss=loss, train_acc=accuracy, steps=1).items():
            sums[tag] = sums.get(tag, 0.0) + float(value)
        # In one call, for a signal acts between two: either all of the step is counted, or nothing.
        vars(self).update(
            step=self.step + 1, step_in_epoch=self.step_in_epoch + 1, loss_sum=self.loss_sum + loss,
            accuracy_sum=self.accuracy_sum + accuracy, val_loss=None, val_acc=None,
            learning_rate=scalars["learning_rate"], running_sums=sums,
        )  # fmt: skip

    def sync_step(self, global_step):
        """The variable global_step is this number; returns how many steps were not counted. They belong to no epoch,
        and what validation has found is not of what they have made of the variables."""
        uncounted = global_step - self.step
        if uncounted:
            vars(self).update(step=global_step, val_loss=None, val_acc=None)
        return uncounted

    def take_means(self):
        """{tag: mean over the steps since the last point of the training curves}; forgets their sums."""
        sums, self.running_sums = dict(self.running_sums), {}
        steps = sums.pop("steps", None)
        return {tag: total / steps for tag, total in sums.items()}

    def end_epoch(self, val_loss, val_acc, seconds):
        """An epoch is complete, after so many seconds, and this was found in validation: all of it in one call."""
        entry = {"epoch": self.epoch + 1, "loss": self.loss_sum / self.step_in_epoch}
        entry.update(acc=self.accuracy_sum / self.step_in_epoch, val_loss=val_loss, val_acc=val_acc)
        entry.update(learning_rate=self.learning_rate, seconds=seconds)
        vars(self).update(
            history=[*self.history, entry], step_in_epoch=0, loss_sum=0.0, accuracy_sum=0.0, seconds=0.0,
            val_loss=val_loss, val_acc=val_acc,
        )  # fmt: skip

    def to_json(self):
        """What an entry of run.json says of it; the history is beside the entries."""
        progress = {"epoch": self.epoch, "position": self.step_in_epoch, "sums": [self.loss_sum, self.accuracy_sum]}
        progress.update(seconds=self.seconds, window=self.running_sums, learning_rate=self.learning_rate)
        progress.update(fingerprint=self.fingerprint, members=self.world_size)
        results = {"val_loss": self.val_loss, "val_acc": self.val_acc}
        return dict(results, epoch=self.epoch, global_step=self.step, progress=progress)

    @classmethod
    def from_json(cls, entry, history, source):
        """The state that an entry of run.json describes, with the history beside it. They may be from elsewhere.

        Args:
            source: what they are of, in errors.

        Raises:
            InputError: a field is missing or wrong.
        """
        check_fields(entry, ENTRY, source)
        progress = entry.get("progress")
        progress = dict({"members": 1}, **progress) if isinstance(progress, dict) else progress
        check_fields(progress, PROGRESS, f"{source}, progress")
        epoch = progress["epoch"]
        if epoch > len(history):
            raise InputError(f"{source}, progress: found {epoch} as epoch, expected at most {len(history)}")
        for number, line in enumerate(history[:epoch], 1):
            rules = dict(HISTORY, epoch=(is_exactly(number), number))
            check_fields(line, rules, f"{source}, epoch {number} of the history")
        state = cls(progress["fingerprint"], progress["members"], float(progress["learning_rate"]))
        state.history, state.step, state.step_in_epoch = history[:epoch], entry["global_step"], progress["position"]
        state.loss_sum, state.accuracy_sum = map(float, progress["sums"])
        state.seconds, state.running_sums = float(progress["seconds"]), progress["window"]
        state.val_loss, state.val_acc = entry["val_loss"], entry["val_acc"]
        return state


def check_fields(found, rules, source):
    """Raise InputError unless it is a dict in which each field that has a rule is as that says."""
    if not isinstance(found, dict):
        raise InputError(f"{source}: found {repr(found)[:SHOWN]}, expected {', '.join(rules)}")
    for name, (is_right, expected) in rules.items():
        if not is_right(found.get(name)):
            raise InputError(f"{source}: found {repr(found.get(name))[:SHOWN]} as {name}, expected {expected}")


def best_entry(entries):
    """Of some dicts with val_acc and val_loss, the one with the highest accuracy; None if nothing was validated.

    The lower loss decides between equals, then the earlier entry.
    """
    validated = [entry for entry in entries if None not in (entry["val_acc"], entry["val_loss"])]
    return max(validated, key=lambda entry: (entry["val_acc"], -entry["val_loss"])) if validated else None
