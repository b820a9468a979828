"""The command predict: classify images with a frozen graph. Imports no network, and nothing of training."""

import json
import sys

from tqdm import tqdm

from src.console import display_width, escape_control_characters, exit_quietly_on_sigpipe, ljust
from src.errors import ExitCode, InputError
from utils.images.image_folders import images_at
from utils.inference.exported import graph_path
from utils.inference.predictor import load


def run(config, overrides, images, weights=None, top=5, json=False, trust_graph=False):
    """Print the predictions; returns the ExitCode."""
    exit_quietly_on_sigpipe()
    predictor = load(graph_path(config) if weights is None else weights, trust_graph, config.device)
    corrupt = print_predictions(predictor, images_at(images), top, json)
    return ExitCode.PROBLEMS_FOUND if corrupt else ExitCode.OK


def print_predictions(predictor, paths, top, as_json):
    """Print the `top` classes of each image, the most probable first, as a table or as lines of JSON.

    Returns:
        the number of corrupt images.
    """
    widths = [
        max(display_width(escape_control_characters(text)) for text in texts) for texts in (paths, predictor.classes)
    ]
    corrupt = 0
    with tqdm(total=len(paths), unit="images", disable=None, leave=False, dynamic_ncols=True) as bar:
        for path, found in predictor.classify(paths):
            if isinstance(found, InputError):
                corrupt += 1
                tqdm.write(f"error: {escape_control_characters(str(found))}", file=sys.stderr)
            else:
                best = [(predictor.classes[index], found[index]) for index in found.argsort()[::-1][:top]]
                tqdm.write(json_line(path, best) if as_json else table_line(path, best, *widths))
            bar.update()
    return corrupt


def json_line(path, best):
    predictions = [{"class": name, "probability": round(probability, 6)} for name, probability in best]
    return json.dumps({"image": path, "predictions": predictions})


def table_line(path, best, path_width, name_width):
    columns = "".join(f"  {ljust(escape_control_characters(name), name_width)} {100 * p:5.1f} %" for name, p in best)
    return ljust(escape_control_characters(path), path_width) + columns
