"""The command predict: classify images with a frozen graph. Imports no network, and nothing of training."""

import json
import sys

from tqdm import tqdm

from src.console import display_width, escape_control_characters, ljust, print_note
from src.errors import ExitCode, InputError
from src.system import end_on_broken_pipe
from utils.images.image_folders import images_at
from utils.inference.exported import describe_origin, graph_path
from utils.inference.predictor import Predictor
from utils.progress import progress


def run(config, overrides, images, weights=None, top=None, json=False, trust_graph=False):
    """Print the predictions; returns the ExitCode."""
    end_on_broken_pipe()
    predictor = Predictor(graph_path(config) if weights is None else weights, device=config.device, trusted=trust_graph)
    paths = images_at(images)
    print_note(describe_origin(predictor.source, predictor.metadata))
    corrupt = print_predictions(predictor, paths, top, json)
    return ExitCode.PROBLEMS_FOUND if corrupt else ExitCode.OK


def print_predictions(predictor, paths, top, as_json):
    """Print the `top` classes of each image, the most probable first, as a table or as lines of JSON.

    Args:
        top: None: five in a table, all in JSON.

    Returns:
        the number of corrupt images.
    """
    widths = [
        max(display_width(escape_control_characters(text)) for text in texts) for texts in (paths, predictor.classes)
    ]
    corrupt, top = 0, top or (len(predictor.classes) if as_json else 5)
    with progress(len(paths), "predict") as bar:
        for path, found in predictor.classify(paths):
            if isinstance(found, InputError):
                corrupt += 1
                tqdm.write(f"error: {escape_control_characters(str(found))}", file=sys.stderr)
            else:
                best = predictor.ranked(found)[:top]
                tqdm.write(json_line(path, best) if as_json else table_line(path, best, *widths))
            bar.update()
    return corrupt


def json_line(path, best):
    predictions = [{"class": name, "probability": round(probability, 6)} for name, probability in best]
    return json.dumps({"image": path, "predictions": predictions})


def table_line(path, best, path_width, name_width):
    columns = "".join(f"  {ljust(escape_control_characters(name), name_width)} {100 * p:5.1f} %" for name, p in best)
    return ljust(escape_control_characters(path), path_width) + columns
