"""The command explain: draw Grad-CAM heat maps."""

from src.console import print_note, say
from src.errors import InputError
from utils.images.image_folders import images_at
from utils.inference.explain import Explainer, draw_explanations
from utils.inference.exported import describe_origin, graph_path
from utils.inference.predictor import Predictor

MAX_EXPLAINED = 100  # images in a figure


def run(config, overrides, images, output="explanation.png", weights=None, trust_graph=False):
    """Draw the heat maps of images."""
    paths = images_at(images)
    if len(paths) > MAX_EXPLAINED:
        raise InputError("explain", f"{len(paths)} images", f"at most {MAX_EXPLAINED} for one figure")
    predictor = Predictor(graph_path(config) if weights is None else weights, device=config.device, trusted=trust_graph)
    draw_explanations(output, Explainer(predictor), paths)
    print_note(describe_origin(predictor.source, predictor.metadata))
    say(f"written to {output}")
