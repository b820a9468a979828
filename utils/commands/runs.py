"""The command runs: a table of the runs that have checkpoints."""

import glob
import os

from src.console import display_width, escape_control_characters, ljust
from src.errors import InputError
from src.system import end_on_broken_pipe
from utils.checkpoints.run_index import list_runs
from utils.inference.exported import metadata_path, read_metadata

ELSEWHERE = "python run.py runs FOLDER looks in another folder"


def run(configs, overrides):
    """Print the table of the runs in each checkpoint_dir of `configs`."""
    end_on_broken_pipe()
    print(table(configs))


def table(configs):
    """The runs as text: a line each, the oldest first."""
    rows = [("run", "model", "images", "epochs", "best val_acc", "MB", "graph")]
    for config in configs:
        for checkpoints in list_runs(config.checkpoint_dir):
            latest = checkpoints.latest()
            if latest and checkpoints.entry(latest)["settings"].get("model_arch") == config.model_arch:
                rows.append(row(checkpoints, latest, config))
    if len(rows) == 1:
        return f"no runs in {', '.join(sorted({config.checkpoint_dir for config in configs}))}; {ELSEWHERE}"
    widths = [max(map(display_width, column)) for column in zip(*rows)]
    return "\n".join("  ".join(ljust(text, width) for text, width in zip(line, widths)).rstrip() for line in rows)


def row(checkpoints, latest, config):
    """The cells of a run."""
    entry, best = checkpoints.entry(latest), checkpoints.best()
    files = [file.path for file in os.scandir(checkpoints.folder) if file.is_file()]
    values = (
        os.path.basename(checkpoints.folder),
        config.model_arch,
        entry["settings"].get("train_path"),
        f"{entry.get('epoch')} of {entry['settings'].get('num_epoch')}",
        f"{checkpoints.entry(best)['val_acc']:.4f}" if best else "-",
        f"{sum(map(os.path.getsize, files)) / 1e6:.1f}",
        find_graph(config, os.path.basename(entry["run_folder"] or ""), best) or "-",
    )
    return [escape_control_characters(str(value)) for value in values]


def find_graph(config, run, best):
    """The path of a run's exported graph, with a note if it is not of its best checkpoint; None if there is none."""
    name = f"{config.model_arch}.pb"
    for path in [os.path.join(config.weight_dir, name), *sorted(glob.glob(os.path.join(config.weight_dir, "*", name)))]:
        try:
            origin = read_metadata(metadata_path(path))["run"]
        except InputError:
            continue
        if os.path.basename(origin.get("run_folder", "")) == run and os.path.exists(path):
            is_best = os.path.basename(origin.get("checkpoint", "")) == os.path.basename(best or "")
            return path if is_best else f"{path} (not of its best checkpoint)"
    return None
