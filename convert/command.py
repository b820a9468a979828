"""The command line of the converters. TensorFlow is imported only once the arguments are valid."""

import sys

from convert import SETTINGS
from src.console import restart_in_utf8
from src.gpu import hidden_gpus
from src.settings import settings_for
from utils.command_line import TRUST_GRAPH, Parser, end_process, exit_code  # noqa: F401

SWITCH = (False, True)  # values of an option that takes none on the command line


def command(name, about, conversions, **choices):
    """Run `python -m name` and return its exit code.

    Args:
        about: the text of --help.
        conversions: conversions(reference, **chosen) -> functions that each return a Comparison.
        choices: {option of this converter: its values, the default first, or SWITCH}.
    """
    restart_in_utf8()
    return exit_code(lambda: run(sys.argv[1:], name, about, conversions, **choices))


def parser(name, about, choices):
    result = Parser(prog=f"python -m {name}", usage="%(prog)s [GRAPH.pb] [--OPTION VALUE ...]", description=about)
    result.add_argument(
        "graph",
        nargs="?",
        metavar="GRAPH.pb",
        help="a frozen graph with its JSON beside it (default weights/<model_arch>/<model_arch>.pb)",
    )
    for option, values in choices.items():
        kind, default = {"choices": values}, f" (default {values[0]})"
        if values is SWITCH:
            kind, default = {"action": "store_true"}, ""
        result.add_argument(f"--{option}", default=values[0], help=f"as above{default}", **kind)
    result.add_argument("--input", metavar="NAME", help="name of the graph's placeholder, if not as in the JSON")
    result.add_argument(
        "--output",
        metavar="NAME",
        help="name of the operation that gives the logits; with --input and --output, no JSON is needed: the other "
        "metadata then comes from src/config.py",
    )
    result.add_argument(*TRUST_GRAPH[0], **TRUST_GRAPH[1])
    result.add_settings(SETTINGS, of_the_run=["train_path", "test_path", "bad_images"])
    return result


def run(words, name, about, conversions, **choices):
    """As command, with these words as arguments, within another command line."""
    options = parser(name, about, choices).parse(words)
    chosen = {option: options.pop(option) for option in choices}
    # Invalid ones fail at once.
    config = settings_for(SETTINGS, {name: options[name] for name in SETTINGS if name in options})
    from convert.compare import open_reference, run_conversions

    with hidden_gpus(config.device):
        reference = open_reference(**options)
        return run_conversions(reference, conversions(reference, **chosen))
