"""The command export: export a checkpoint of a run."""

from convert.export import export_checkpoint
from src.console import say


def run(config, overrides, last=False, run=None):
    """Export the best checkpoint of the latest run; or its latest; or of another run."""
    graph, origin = export_checkpoint(last, run, **overrides)
    val_acc = origin["val_acc"]
    validated = "stopped before it was validated" if val_acc is None else f"validation accuracy {val_acc:.4f}"
    say(f"graph            {graph}")
    say(f"from checkpoint  {origin['checkpoint']}, {validated}")
