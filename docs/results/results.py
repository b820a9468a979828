"""The results of trainings, kept as small text files, and the tables that README.md makes of them.

    python docs/results/results.py keep NAME RUN_FOLDER TITLE COMMAND MACHINE   copies what a run has left in graphs/
    python docs/results/results.py                                             writes the tables in README.md anew

A folder here holds history.csv, a line for each epoch, and about.json; if the test images were asked, evaluation.txt.
"""

import csv
import json
import os
import re
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
COLUMNS = {
    "what": "what", "epochs": "epochs", "validation": "validation", "test": "test", "flip": "with `--flip`",
    "minutes": "minutes",
}  # fmt: skip
README = os.path.join(os.path.dirname(os.path.dirname(HERE)), "README.md")


def keep(name, run_folder, title, command, machine):
    """Copy the curve and the evaluation of a run."""
    folder = os.path.join(HERE, name)
    os.makedirs(folder, exist_ok=True)
    for file in ("history.csv", "evaluation.txt"):
        if os.path.exists(os.path.join(run_folder, file)):
            shutil.copy(os.path.join(run_folder, file), folder)
    with open(os.path.join(folder, "about.json"), "w", encoding="utf-8") as file:
        json.dump({"title": title, "command": command, "machine": machine}, file, indent=1)
        file.write("\n")


def read(name):
    """Of a folder here: {title, command, machine, epochs, minutes, validation, test, flip}."""
    folder = os.path.join(HERE, name)
    with open(os.path.join(folder, "about.json"), encoding="utf-8") as file:
        found = json.load(file)
    with open(os.path.join(folder, "history.csv"), encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    found["epochs"] = len(epochs)
    found["minutes"] = sum(float(epoch["seconds"]) for epoch in epochs) / 60
    found["validation"] = f"{max(float(epoch['val_acc']) for epoch in epochs):.3f}"
    evaluation = os.path.join(folder, "evaluation.txt")
    if os.path.exists(evaluation):
        with open(evaluation, encoding="utf-8") as file:
            accuracies = re.findall(r"loss \S+, accuracy ([\d.]+)", file.read())
        found.update(zip(("test", "flip"), (f"{float(accuracy):.3f}" for accuracy in accuracies)))
    return found


def table(prefix):
    """A table in Markdown of the folders whose names begin so, in the order of their names."""
    names = [
        name for name in sorted(os.listdir(HERE)) if name.startswith(prefix) and os.path.isdir(os.path.join(HERE, name))
    ]
    rows = [dict(read(name), what=name) for name in names]
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    lines = ["| " + " | ".join(COLUMNS[column] for column in columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        row.update(what=f"[{row['title']}](docs/results/{row['what']})", minutes=f"{row['minutes']:.0f}")
        lines.append("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
    return "\n".join(lines)


def with_tables(text):
    """The text with each table between <!-- results: PREFIX --> and <!-- end --> made anew."""
    return re.sub(
        r"(<!-- results: (\S*) -->\n).*?(<!-- end -->)",
        lambda found: found.group(1) + table(found.group(2)) + "\n" + found.group(3),
        text,
        flags=re.DOTALL,
    )


def main(arguments):
    if arguments[:1] == ["keep"] and len(arguments) == 6:
        keep(*arguments[1:])
    elif arguments:
        sys.exit(__doc__)
    with open(README, encoding="utf-8") as file:
        text = file.read()
    with open(README, "w", encoding="utf-8") as file:
        file.write(with_tables(text))


if __name__ == "__main__":
    main(sys.argv[1:])
