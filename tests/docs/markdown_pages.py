"""What the pages of the guide hold, and what is wrong with them: for test_guide.py, and run_docs.py, which runs them.

How a page is written:

* A fenced block names its language: sh (commands alone, no prompt and no output), python (a program of its own), text
  (what is printed, or a tree of files), powershell (commands on Windows), js, yaml or json.
* `make guide` runs each sh and each python block. Where it cannot, the line before the block is
  <!-- not run: REASON -->, and REASON begins with one of REASONS.
* A text block right after a python block is what that program prints, to the letter.
"""

import ast
import os
import re
import string
import subprocess
from collections import namedtuple

LANGUAGES = ("sh", "python", "text", "powershell", "js", "yaml", "json")
RUN = ("sh", "python")
REASONS = {
    "download": "it fetches or installs something from the network",
    "GPU": "it needs a graphics card",
    "cluster": "it needs several machines",
    "hours": "it takes longer than a check may: minutes to hours",
    "make": ".ci/run runs it itself",
    "placeholder": "it names a file or a run that only the reader has",
}
LARGEST_PICTURE = 200000  # bytes
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp")

FENCE = re.compile(r"( *)(```+|~~~+)(.*)")
MARK = re.compile(r"<!-- not run: (.*?) -->")
SPAN = re.compile(r"(?<!`)(`+)(?!`)((?:(?!\n\s*\n).)+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)|^ *\[[^\]^]+\]:\s*<?([^\s>]+)|<(?:a|img)\b[^>]*?\b(?:href|src)=\"([^\"]*)\"", re.M
)

# Lines count from 1, and `line` is that of the opening fence; `printed`: the text block after a python block, or None.
Block = namedtuple("Block", "line language text mark printed closed")
Page = namedtuple("Page", "path text prose blocks")  # prose: the text with the lines of its blocks left empty


def read_pages(root):
    """README.md, CONTRIBUTING.md, CHANGELOG.md and all pages of docs/: {path from root, with /: Page}."""
    paths = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    for folder, _, files in sorted(os.walk(os.path.join(root, "docs"))):
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        paths += [f"{inside}/{file}" for file in sorted(files) if file.endswith(".md")]
    pages = {}
    for path in paths:
        with open(os.path.join(root, path), encoding="utf-8") as file:
            pages[path] = parse(path, file.read())
    return pages


def parse(path, text):
    """The Page of a text in Markdown."""
    prose, blocks = text.split("\n"), []
    number = 0
    while number < len(prose):
        opening = FENCE.fullmatch(prose[number])
        if not opening:
            number += 1
            continue
        indent, fence, language = opening.groups()
        end = number + 1
        while end < len(prose) and prose[end].strip() != fence:
            end += 1
        lines = [line[len(indent) :] if line.startswith(indent) else line for line in prose[number + 1 : end]]
        mark = MARK.fullmatch(prose[number - 1].strip()) if number else None
        code = "\n".join(lines) + "\n"
        blocks.append(Block(number + 1, language.strip(), code, mark and mark.group(1), None, end < len(prose)))
        prose[number : end + 1] = [""] * len(prose[number : end + 1])
        number = end + 1
    return Page(path, text, "\n".join(prose), with_outputs(blocks, text.split("\n")))


def with_outputs(blocks, lines):
    """The blocks; those in Python know what they are said to print."""
    result = list(blocks)
    for index, (block, following) in enumerate(zip(blocks, blocks[1:])):
        end = block.line + block.text.count("\n") + 1  # the line of the closing fence
        between = "".join(lines[end : following.line - 1])
        if (block.language, following.language) == ("python", "text") and not between.strip():
            result[index] = block._replace(printed=following.text)
    return result


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def without_code(page):
    """The prose with x in place of what stands in `code`, so that all else stays where it is."""
    return SPAN.sub(lambda found: re.sub(r"[^\n]", "x", found.group()), page.prose)


def links(page):
    """[(line, target)] of all links and pictures."""
    text = without_code(page)
    return [(line_of(text, found.start()), next(filter(None, found.groups()), "")) for found in LINK.finditer(text)]


def anchors(page):
    """The anchors of a page's headings, as a code host makes them."""
    found, seen = [], {}
    for heading in re.findall(r"^#{1,6} +(.*?)[ #]*$", page.prose, re.MULTILINE):
        title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found.append(f"{name}-{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return found + re.findall(r'<a (?:id|name)="([^"]+)"', page.prose)


def is_elsewhere(target):
    return re.match(r"(https?|mailto):", target) is not None


def resolved(page, target):
    """The path from the project's folder that a link leads to; its anchor is left out."""
    path = target.split("#")[0]
    return os.path.normpath(os.path.join(os.path.dirname(page.path), path)) if path else page.path


def link_faults(page, pages, root):
    """What is wrong with the links and pictures of a page, a line for each."""
    faults = []
    for line, target in links(page):
        problem = None if is_elsewhere(target) else link_problem(page, target, pages, root)
        if problem:
            faults.append(f"{page.path}:{line}: {target}: {problem}")
    return faults


def link_problem(page, target, pages, root):
    path, anchor = resolved(page, target), target.partition("#")[2]
    if target.startswith(("/", "file:")) or re.match(r"[A-Za-z]:[\\/]", target):
        return "an absolute path"
    if path.startswith(".."):
        return "outside the project"
    file = os.path.join(root, path)
    if not os.path.exists(file):
        return "no such file"
    if anchor and path not in pages:
        return "an anchor in a file that is no page"
    if anchor and anchor not in anchors(pages[path]):
        return "no such heading"
    if path.lower().endswith(PICTURES) and os.path.getsize(file) >= LARGEST_PICTURE:
        return f"{os.path.getsize(file)} bytes, expected less than {LARGEST_PICTURE}"
    return None


def unreachable(pages, start="README.md"):
    """The pages of docs/ to which no links lead from README.md."""
    reached, waiting = {start}, [start]
    while waiting:
        page = pages[waiting.pop()]
        for _, target in links(page):
            path = resolved(page, target)
            if not is_elsewhere(target) and path in pages and path not in reached:
                reached.add(path)
                waiting.append(path)
    return [path for path in pages if path.startswith("docs/") and path not in reached]


def block_faults(page, run_by_ci):
    """What is wrong with the blocks of a page and with their marks; `run_by_ci`: the commands of .ci/run."""
    faults = []
    for block in page.blocks:
        faults += [f"{page.path}:{block.line}: {problem}" for problem in block_problems(block, run_by_ci)]
    marked = {block.line - 1 for block in page.blocks if block.mark is not None}
    for found in re.finditer(r"<!-- not run", without_code(page)):
        line = line_of(page.prose, found.start())
        if line not in marked:
            faults.append(f"{page.path}:{line}: a mark, but no block right after it, or no reason")
    return faults


def block_problems(block, run_by_ci):
    if not block.closed:
        yield "the block has no end"
    if block.language not in LANGUAGES:
        yield f"language {block.language or 'none'}, expected one of {', '.join(LANGUAGES)}"
    elif block.language in RUN:
        yield from SYNTAX[block.language](block.text)
    elif block.mark is not None:
        yield f"a mark before a block of {block.language}, which is never run"
    reason = re.match(r"\w*", block.mark or "").group()
    if block.mark is not None and reason not in REASONS:
        yield f"not run: {block.mark}: expected a reason that begins with one of {', '.join(REASONS)}"
    if reason == "make":
        for command in commands(block.text):
            if without_python(command) not in run_by_ci:
                yield f"not run: make, but .ci/run does not run {command}"


def sh_problems(text):
    if re.search(r"^ *\$ ", text, re.MULTILINE):
        yield "a prompt in a block of commands"
    done = subprocess.run(["sh", "-n"], input=text.encode(), stderr=subprocess.PIPE)
    if done.returncode:
        yield f"not for a shell: {done.stderr.decode().strip()}"


def python_problems(text):
    try:
        ast.parse(text)
    except SyntaxError as error:
        yield f"no Python: {error}"


SYNTAX = {"sh": sh_problems, "python": python_problems}


def commands(text):
    """The commands of a sh block or script, a line each, without comments."""
    lines = re.sub(r"\\\n\s*", "", text).split("\n")
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line]


def without_python(command):
    """make test PYTHON=python3.11 -> make test"""
    return " ".join(word for word in command.split() if not word.startswith("PYTHON="))


def spans(page):
    """[(line, code)] of what stands in `code` within the prose."""
    return [
        (line_of(page.prose, found.start()), " ".join(found.group(2).split())) for found in SPAN.finditer(page.prose)
    ]


def table_rows(page):
    """[(line, cells)] of the rows of all tables, heads included."""
    rows = []
    for number, line in enumerate(page.prose.split("\n"), 1):
        # A | in `code` is a cell's end as well, unless it is written \|.
        if line.startswith("|") and set(line) - set("|-: "):
            rows.append((number, [cell.strip(string.whitespace) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]))
    return rows
