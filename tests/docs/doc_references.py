"""Whether what the pages of the guide name is there: commands, options, make's targets, settings. For test_guide.py."""

import ast
import glob
import importlib
import os
import re

from convert.command import parser
from run import COMMANDS
from src import config
from src.settings import SETTINGS, settings, with_role
from tests.docs.markdown_pages import commands, spans, table_rows, without_code

# Options that the pages name and that are not this program's: of tensorboard, or mistyped as an example.
OTHER_OPTIONS = {"--logdir", "--epochs"}
CONVERTERS = ("convert", "convert.pb2tflite", "convert.pb2savedmodel", "convert.pb2onnx")
SHELLS = ("sh", "powershell")  # languages of blocks of commands
OPTION = re.compile(r"(?<![\w-])--[A-Za-z]\w*(?:-\w+)*")


def options_of_command(name):
    command = COMMANDS[name]
    own = [word for names, _ in command.options for word in names if word.startswith("--")]
    return {"--help", *own, *(f"--{setting}" for setting in command.settings)}


def options_of_converter(name):
    choices = importlib.import_module(name).CHOICES if name.endswith("tflite") else {}
    return set(parser(name, "", choices)._option_string_actions)


def all_options():
    return OTHER_OPTIONS.union(*map(options_of_command, COMMANDS), *map(options_of_converter, CONVERTERS))


def makefile_names(root):
    """The targets of the Makefile, and the variables that it reads."""
    with open(os.path.join(root, "Makefile"), encoding="utf-8") as file:
        text = file.read()
    targets, variables = r"^([a-z]\w*):", r"\$\((?:call quote,)?([A-Z]+)\)"
    return set(re.findall(targets, text, re.MULTILINE)), set(re.findall(variables, text))


def name_faults(page, root):
    """What a page names and is not there, a line for each."""
    faults = []
    for line, text in named(page):
        for part in re.split(r"&&|\|\||[;|]", text):
            faults += [f"{page.path}:{line}: {text}: {problem}" for problem in problems(part.split(), root)]
    for line, text in bare(page):
        faults += [f"{page.path}:{line}: {problem}" for problem in option_problems(OPTION.findall(text), all_options())]
    return faults


def named(page):
    """[(line, text)] of the `code` in prose, and of commands as a whole in blocks."""
    result = spans(page)
    for block in page.blocks:
        lines = commands(block.text) if block.language in SHELLS else re.findall(r".*\bpython .*", block.text)
        result += [(block.line, line) for line in lines]
    return result


def bare(page):
    """[(line, text)] where options may stand without the command they belong to: prose, and blocks of no shell."""
    blocks = [(block.line, block.text) for block in page.blocks if block.language not in SHELLS]
    return list(enumerate(without_code(page).split("\n"), 1)) + blocks


def problems(words, root):
    """What is wrong with a command, or with a part of one such as `evaluate --flip`."""
    while words and re.match(r"[A-Z_0-9]+=", words[0]):
        words = words[1:]
    first, last = (words[0], words[-1]) if words else ("", "")
    script = next((index for index, word in enumerate(words) if re.search(r"\w\.py$", word)), None)
    if first == "make":
        yield from make_problems(words[1:], root)
    elif "-m" in words[:-1]:
        module = words[words.index("-m") + 1]
        if module in CONVERTERS:
            yield from option_problems(words, options_of_converter(module))
        elif module.startswith("convert"):
            yield f"no such module: {module}"
    elif script is not None and (words[script] == "run.py" or words[script].endswith("/run.py")):
        yield from command_problems(words[script + 1 :])
    elif script and os.path.basename(words[script - 1]).startswith("python"):
        yield from script_problems(words[script], words, root)
    elif first in COMMANDS and last != first:
        yield from option_problems(words, options_of_command(first))
    elif first.startswith("--"):
        yield from option_problems(words, all_options())


def command_problems(words):
    """Of the words after run.py."""
    command = words[0] if words and re.match(r"\w", words[0]) else "train"
    if command == "convert":
        yield from option_problems(words, options_of_converter("convert"))
    elif command not in COMMANDS:
        yield f"no such command: {command}"
    else:
        yield from option_problems(words, all_options() if "..." in words[:1] else options_of_command(command))


def option_problems(words, known):
    for word in words:
        option = OPTION.match(word)
        if option and option.group() not in known:
            yield f"no such option: {option.group()}"


def script_problems(path, words, root):
    """Of a script of the project: it must be there, and its text name the options."""
    file = os.path.join(root, path)
    if not os.path.isfile(file):
        yield f"no such file: {path}"
        return
    with open(file, encoding="utf-8") as source:
        yield from option_problems(words, set(OPTION.findall(source.read())))


def make_problems(words, root):
    targets, variables = makefile_names(root)
    for word in words:
        variable = re.match(r"([A-Z]+)=", word)
        if variable and variable.group(1) not in variables:
            yield f"the Makefile does not read {variable.group(1)}"
        if re.fullmatch(r"[a-z]\w*", word) and word not in targets:
            yield f"no such target of make: {word}"


def missing_tests(page, root):
    """The tests that a page names in `code` and that no file in tests/ has."""
    there = set()
    for path in glob.glob(os.path.join(root, "tests", "test_*.py")):
        with open(path, encoding="utf-8") as file:
            there.update(re.findall(r"def (test_\w+)", file.read()))
    return [text for _, text in spans(page) if text.startswith("test_") and text not in there]


def missing_commands(pages):
    """The commands of run.py that stand in no table of these pages as `python run.py NAME`."""
    firsts = [cells[0] for page in pages for _, cells in table_rows(page)]
    return [
        command for command in COMMANDS if not any(re.search(rf"`python run\.py {command}\b", cell) for cell in firsts)
    ]


def settings_faults(page):
    """What is wrong with a page's tables of settings: | `name` | default as in src/config.py | ... |

    A row may have several names and as many defaults, with commas between them. Where src/config.py says None because
    the setting follows from others, the default says from what: 32 for lenet5, 224 for mobilenetv2; checkpoints/lenet5.
    """
    faults, seen = [], []
    for line, cells in settings_rows(page):
        names = re.findall(r"`(\w+)`", cells[0])
        seen += names
        unknown = [name for name in names if name not in SETTINGS]
        problem = f"no such setting: {', '.join(unknown)}" if unknown else default_problem(names, cells[1])
        if problem:
            faults.append(f"{page.path}:{line}: {problem}")
    faults += [f"{page.path}: no row for the setting {name}" for name in SETTINGS if name not in seen]
    return faults + [f"{page.path}: several rows for {name}" for name in set(seen) if seen.count(name) > 1]


def settings_rows(page):
    """The rows of those tables whose head begins with | setting | default |."""
    inside, previous = False, 0
    for line, cells in table_rows(page):
        if line != previous + 1:  # the line of dashes below a head is left out of the rows
            inside = inside and line == previous + 2
        previous = line
        if [cell.lower() for cell in cells[:2]] == ["setting", "default"]:
            inside = True
        elif inside:
            yield line, cells


def default_problem(names, cell):
    text = cell.replace("`", "")
    written = [vars(config)[name] for name in names]
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text
    if (value if len(names) == 1 else list(value)) == (written[0] if len(names) == 1 else written):
        return None
    if all(name in with_role("derived") and says_what_follows(name, text) for name in names):
        return None
    return f"default of {', '.join(names)}: found {text}, expected {', '.join(map(repr, written))}, as in src/config.py"


def says_what_follows(name, text):
    """Whether a text in words says what follows for a setting that is None."""
    if name in ("classes", "total_class"):
        return "train_path" in text
    if name in with_role("output_dir"):
        parent = getattr(settings(model_arch="lenet5"), name).split("/")[0]
        return re.search(rf"\b{parent}/(lenet5|<?model_arch>?)", text, re.IGNORECASE) is not None
    said = {model: float(value) for value, model in re.findall(r"([\d.e-]+) for (\w+)", text)}
    return said == {model: getattr(settings(model_arch=model), name) for model in config.MODEL_ARCHS}
