"""report.html: an evaluation as a self-contained page."""

import base64
import csv
import html
import io
import os

from src.console import escape_control_characters
from src.errors import InputError
from utils.files import read_file
from utils.inference.evaluation import MAX_CONFUSIONS, summary_lines

FIGURES = (  # file in the run's folder, its heading
    ("curves.png", "Learning curves"),
    ("confusion.png", "Confusion matrix"),
    ("precision_recall.png", "Precision and recall: a curve per class"),
    ("mistakes.png", "The most confident mistakes"),
    ("mistakes_explained.png", "Grad-CAM: predicted (wrong) class vs. true class"),
    ("train_batch.png", "First training batch"),
)
STYLE = """
body { font: 16px/1.5 sans-serif; color: #222; max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1, p { overflow-wrap: anywhere; }
div.wide { overflow-x: auto; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; }
td:first-child { min-width: 8rem; overflow-wrap: anywhere; }
table.settings td, table.confusions :nth-child(2) { text-align: left; overflow-wrap: anywhere; }
@media (max-width: 32rem) { table { font-size: .8rem; } td:first-child { min-width: 4rem; } }
"""


def render_html(title, evaluation, settings, folder):
    """The page as text.

    Args:
        title: its heading.
        evaluation: an Evaluation.
        settings: {name: value} for the table of settings.
        folder: of the figures and history.csv; those that do not exist are left out.
    """
    parts = [f"<h1>{escaped(title)}</h1>", f"<p>{escaped('; '.join(summary_lines(evaluation)))}</p>"]
    heading = ("class", "precision", "recall", "F1", "images")
    rows = [
        (name, f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}", num_images)
        for name, precision, recall, f1, num_images in evaluation.per_class
    ]
    parts += ["<h2>Per-class metrics</h2>", table(heading, rows), *confusions_table(evaluation)]
    for file, text in FIGURES:
        path = os.path.join(folder, file)
        if os.path.isfile(path):
            parts += [f"<h2>{escaped(text)}</h2>", figure(path, text)]
    parts += history_table(os.path.join(folder, "history.csv"))
    parts += ["<h2>Settings</h2>", table(None, settings.items(), "settings")]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def escaped(text):
    """HTML-escaped, and without control characters."""
    return html.escape(escape_control_characters(text))


def table(heading, rows, kind=""):
    lines = [heading_row(heading)] if heading else []
    lines += ["<tr>" + "".join(f"<td>{escaped(str(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    return f'<div class="wide"><table class="{kind}">\n' + "\n".join(lines) + "\n</table></div>"


def heading_row(names):
    return "<tr>" + "".join(f"<th>{escaped(name)}</th>" for name in names) + "</tr>"


def figure(path, text):
    with open(path, "rb") as file:
        content = base64.b64encode(file.read()).decode("ascii")
    return f'<img alt="{escaped(text)}" src="data:image/png;base64,{content}">'


def confusions_table(evaluation):
    """The most frequent confusions; nothing if there are none."""
    rows = [
        (evaluation.per_class[true].name, evaluation.per_class[predicted].name, count)
        for true, predicted, count in evaluation.confusions[:MAX_CONFUSIONS]
    ]
    heading = ("true class", "predicted class", "images")
    return ["<h2>Most frequent confusions</h2>", table(heading, rows, "confusions")] if rows else []


def history_table(path):
    """A collapsed table of all epochs; nothing if the file does not exist."""
    try:
        text = read_file("history", path).decode("utf-8")
        heading, *rows = csv.reader(io.StringIO(text, newline=""))
    except (InputError, ValueError, csv.Error):  # it is missing or corrupt
        return []
    return ["<details><summary>Metrics of all epochs</summary>", table(heading, rows), "</details>"]
