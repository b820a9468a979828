"""Results of training runs, kept as small text files, and the tables of them in README.md and docs/.

    python docs/results/results.py keep NAME RUN_FOLDER TITLE COMMAND MACHINE   copies the results of a run in graphs/
    python docs/results/results.py                                             regenerates the tables

A folder here contains history.csv, a line for each epoch, and about.json; if it was evaluated on the test images, also
evaluation.txt and evaluation.json. For results older than evaluation.json, it was derived from the text: their losses
have four digits, and "flip" has only loss and accuracy.

A table is between <!-- results: PREFIXES: COLUMNS --> and <!-- end -->; it has a row for each folder whose name starts
with one of the prefixes.
"""

import csv
import json
import os
import re
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
PAGES = ("README.md", "docs/results.md", "docs/images.md")
HEADINGS = {
    "accuracy": "test accuracy",
    "test": "test accuracy",
    "validation": "validation accuracy",
    "flip": "with `--flip`",
}


def keep(name, run_folder, title, command, machine):
    """Copy the history and the evaluation of a run."""
    if not os.path.exists(os.path.join(run_folder, "history.csv")):
        sys.exit(f"error: found no history.csv in {run_folder}, expected the folder of a run under graphs/")
    folder = os.path.join(HERE, name)
    os.makedirs(folder, exist_ok=True)
    for file in ("history.csv", "evaluation.txt", "evaluation.json"):
        if os.path.exists(os.path.join(run_folder, file)):
            shutil.copy(os.path.join(run_folder, file), folder)
    with open(os.path.join(folder, "about.json"), "w", encoding="utf-8") as file:
        json.dump({"title": title, "command": command, "machine": machine}, file, indent=1)
        file.write("\n")


def read(name):
    """{title, command, machine, epochs, minutes, validation, test, flip} of a folder here."""
    try:
        return read_folder(os.path.join(HERE, name))
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: docs/results/{name}: found {error!r}, expected what keep writes")


def read_folder(folder):
    with open(os.path.join(folder, "about.json"), encoding="utf-8") as file:
        found = json.load(file)
    with open(os.path.join(folder, "history.csv"), encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    found["epochs"] = len(epochs)
    minutes = sum(float(epoch["seconds"]) for epoch in epochs) / 60
    found["minutes"] = f"{minutes:.0f}" if minutes >= 0.5 else "< 1"
    found["validation"] = f"{max(float(epoch['val_acc']) for epoch in epochs):.3f}"
    path = os.path.join(folder, "evaluation.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            evaluation = json.load(file)
        found["test"] = f"{evaluation['accuracy']:.3f}"
        if evaluation["flip"]:
            found["flip"] = f"{evaluation['flip']['accuracy']:.3f}"
    return found


def table(prefixes, columns, page):
    """A table in Markdown of the folders with these prefixes, sorted by name.

    Args:
        page: path of its page within the project, for its links.
    """
    lines = ["| " + " | ".join(HEADINGS.get(column, column) for column in columns) + " |", "|---" * len(columns) + "|"]
    here = os.path.relpath(HERE, os.path.join(REPOSITORY, os.path.dirname(page)))
    for name in sorted(os.listdir(HERE)):
        if name.startswith(prefixes) and os.path.isdir(os.path.join(HERE, name)):
            row = read(name)
            row["what"] = f"[{row['title']}]({here}/{name})"
            row["command"] = f"`{row['command']}`"
            row["accuracy"] = f"[{row.get('test')}]({here}/{name})"
            lines.append("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
    return "\n".join(lines)


def with_tables(text, page):
    """The text of a page with its tables regenerated."""
    return re.sub(
        r"(<!-- results: (.*): (.*) -->\n)(?s:.*?)(<!-- end -->)",
        lambda found: found[1] + table(tuple(found[2].split()), found[3].split(), page) + "\n" + found[4],
        text,
    )


def main(arguments):
    if arguments[:1] == ["keep"] and len(arguments) == 6:
        keep(*arguments[1:])
    elif arguments:
        print(__doc__, file=sys.stderr)
        return 2
    texts = {}
    for page in PAGES:
        with open(os.path.join(REPOSITORY, page), encoding="utf-8") as file:
            texts[page] = with_tables(file.read(), page)
    for page, text in texts.items():  # only after all were generated without an error
        with open(os.path.join(REPOSITORY, page), "w", encoding="utf-8") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
