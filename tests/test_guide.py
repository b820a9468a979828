"""What README.md and the pages in docs/ say is there and is so, and these checks find it where it is not.

`make guide` runs the commands and programs of the pages.
"""

import os
import re
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.docs import doc_references, markdown_pages, run_docs

PAGES = markdown_pages.read_pages(REPOSITORY)
each_page = pytest.mark.parametrize("page", PAGES.values(), ids=list(PAGES))


def ci_commands():
    with open(os.path.join(REPOSITORY, ".ci", "run"), encoding="utf-8") as file:
        ran = [re.sub("^as_(user|job) ", "", command) for command in markdown_pages.commands(file.read())]
    return ["bash .ci/run"] + [markdown_pages.without_python(command) for command in ran]


def assert_none(faults):
    assert not faults, "\n".join(["", *faults])


@each_page
def test_links_lead_somewhere(page):
    assert_none(markdown_pages.link_faults(page, PAGES, REPOSITORY))


@each_page
def test_blocks_have_a_language_and_are_run_or_say_why_not(page):
    assert_none(markdown_pages.block_faults(page, ci_commands()))


@each_page
def test_what_a_page_names_is_there(page):
    assert_none(doc_references.name_faults(page, REPOSITORY))


def test_each_page_is_reached_from_the_readme():
    assert_none(markdown_pages.unreachable(PAGES))


def test_the_readme_is_short():
    assert len(PAGES["README.md"].text.splitlines()) <= 200


def test_each_command_stands_in_a_table():
    assert_none(doc_references.missing_commands([PAGES["README.md"], PAGES["docs/commands.md"]]))


def test_each_promise_has_its_tests():
    assert_none(doc_references.missing_tests(PAGES["docs/reliability.md"], REPOSITORY))
    promise = page("`test_each_promise_has_its_tests`, `test_none`")
    assert doc_references.missing_tests(promise, REPOSITORY) == ["test_none"]


def test_each_setting_stands_in_the_table_with_its_default():
    assert_none(doc_references.settings_faults(PAGES["docs/settings.md"]))


# That the checks find what is wrong: each with a page that is made here.


def page(*lines):
    return markdown_pages.parse("README.md", "\n".join(lines))


@pytest.mark.parametrize(
    "line, problem",
    [
        ("[page](docs/none.md)", "no such file"),
        ("![picture](docs/none.png)", "no such file"),
        ("[![picture](docs/large.png)](https://example.org)", "200000 bytes"),
        ('<img src="/docs/large.png">', "absolute path"),
        ("[`code`](docs/page.md#one-3)", "no such heading"),
        ("[here](#nowhere)", "no such heading"),
        ("[up](../README.md)", "outside"),
        ("[reference]: docs/none.md", "no such file"),
    ],
)
def test_a_broken_link_is_found(tmp_path, line, problem):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "large.png").write_bytes(bytes(200000))
    for name in ("README.md", "docs/page.md"):
        (tmp_path / name).write_text("")
    readme = page("# Title", line)
    all_pages = {"README.md": readme, "docs/page.md": markdown_pages.parse("docs/page.md", "# One\n")}
    (fault,) = markdown_pages.link_faults(readme, all_pages, str(tmp_path))
    assert fault.startswith("README.md:2: ") and problem in fault


def test_links_that_lead_somewhere(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/page.md"):
        (tmp_path / name).write_text("")
    target = markdown_pages.parse(
        "docs/page.md", "# `make` & *more*: 1.14 [to](x) 2_21\n# One\n## One\n```sh\n# Two\n```\n"
    )
    assert markdown_pages.anchors(target) == ["make--more-114-to-2_21", "one", "one-1"]
    readme = page(
        "[a](docs/page.md#one-1), [b](docs) [c](#title) `[no](link)`", "# Title", "```sh", "[no](link)", "```"
    )
    all_pages = {"README.md": readme, "docs/page.md": target}
    assert markdown_pages.link_faults(readme, all_pages, str(tmp_path)) == []
    assert markdown_pages.unreachable(all_pages) == []
    assert markdown_pages.unreachable({**all_pages, "docs/b.md": target}) == ["docs/b.md"]


@pytest.mark.parametrize(
    "text, problem",
    [
        ("```\nls\n```", "language none"),
        ("```bash\nls\n```", "language bash"),
        ("```sh\n$ ls\n```", "prompt"),
        ("```sh\nls (\n```", "not for a shell"),
        ("```python\nprint(\n```", "no Python"),
        ("```sh\nls", "no end"),
        ("<!-- not run: tired -->\n```sh\nls\n```", "expected a reason"),
        ("<!-- not run: hours -->\n```text\nls\n```", "never run"),
        ("<!-- not run: hours -->\n\n```sh\nls\n```", "no block right after it"),
        ("<!-- not run: make -->\n```sh\nmake run EPOCHS=3\n```", "does not run make run EPOCHS=3"),
    ],
)
def test_a_wrong_block_is_found(text, problem):
    (fault,) = markdown_pages.block_faults(page(text), ["make run"])
    assert problem in fault


def test_blocks_as_they_should_be():
    text = "* item\n\n  <!-- not run: make -->\n  ```sh\n  make run PYTHON=python3.7 # so\n  ```\n\n```text\nls\n```\n"
    assert markdown_pages.block_faults(page(text), ["make run"]) == []
    (first, second) = page(text).blocks
    assert (first.line, first.text, first.mark) == (4, "make run PYTHON=python3.7 # so\n", "make")
    assert (second.line, second.text, second.mark) == (8, "ls\n", None)


@pytest.mark.parametrize(
    "line, problem",
    [
        ("`python run.py evaluat`", "no such command: evaluat"),
        ("`python run.py evaluate --num_epoch 3`", "no such option: --num_epoch"),
        ("`evaluate --resume`", "no such option: --resume"),
        ("`--epoch`", "no such option: --epoch"),
        ("all of --epoch", "no such option: --epoch"),
        ("```sh\nls && python run.py --lr 1 \\\n    --top 3\n```", "no such option: --top"),
        ("`python -m convert.pb2tflite --top`", "no such option: --top"),
        ("`python -m convert.pb2mlmodel`", "no such module: convert.pb2mlmodel"),
        ("`python tests/none.py`", "no such file"),
        ("`python tests/helpers/chaos.py --lives 9`", "no such option: --lives"),
        ("```yaml\nargs: [--epoch, 3]\n```", "no such option: --epoch"),
        ("```text\n+ python run.py trian\n```", "no such command: trian"),
        ("`make prepare`", "no such target of make: prepare"),
        ("`make run EPOCH=3`", "does not read EPOCH"),
    ],
)
def test_a_name_that_is_not_there_is_found(line, problem):
    (fault,) = doc_references.name_faults(page(line), REPOSITORY)
    assert problem in fault


def test_names_that_are_there():
    lines = [
        "`TF_CONFIG= python run.py --lr 1`, `python run.py`, `make run EPOCHS=3`, `predict --top 2`, `--flip`, `check`"
    ]
    lines += [
        "`python -m convert FILE.pb --input Image`, `python tests/helpers/chaos.py --kills 3`,",
        "`tensorboard --logdir graphs`",
    ]
    assert doc_references.name_faults(page(*lines), REPOSITORY) == []


def test_a_missing_command_is_found():
    table = page(
        "| command | |",
        "|---|---|",
        *(f"| `python run.py {name}` | |" for name in doc_references.COMMANDS if name != "runs"),
    )
    assert doc_references.missing_commands([table]) == ["runs"]


def settings_page(**changes):
    """A page with a table of all settings, of which some defaults are changed; None: without that row."""
    rows = {name: repr(vars(doc_references.config)[name]) for name in doc_references.SETTINGS}
    rows.update(changes)
    head = ["| setting | default | |", "|---|---|---|"]
    return page(*head, *(f"| `{name}` | {value} | x |" for name, value in rows.items() if value))


IN_WORDS = {"img_size": "32 for lenet5, 224 for mobilenetv2", "classes": "the folders in `train_path`",
            "weight_dir": "`weights/<model_arch>`"}  # fmt: skip


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"lr": "0.1"}, "default of lr: found 0.1, expected 0.01"),
        ({"lr": "a hundredth"}, "default of lr"),
        ({"img_size": "32 for lenet5, 64 for mobilenetv2"}, "default of img_size"),
        ({"seed": None}, "no row for the setting seed"),
        ({"sed": "0"}, "no such setting: sed"),
        ({"seed": "0 |\n| `seed` | 0"}, "several rows for seed"),
    ],
)
def test_a_wrong_row_of_the_settings_is_found(changes, problem):
    (fault,) = doc_references.settings_faults(settings_page(**changes))
    assert problem in fault


def test_a_table_of_settings_as_it_should_be():
    assert doc_references.settings_faults(settings_page()) == []
    together = {"lr": None, "seed": None, "augment": '`"none"` |\n| `lr`, `seed` | .01, 0'}
    assert doc_references.settings_faults(settings_page(**IN_WORDS, **together)) == []


@pytest.fixture
def run_page(tmp_path, capsys):
    """run_page(text) -> (how many blocks failed, what was printed); as in a project that is empty."""
    project = tmp_path / "project"
    (project / ".venv").mkdir(parents=True)
    os.symlink(sys.prefix, str(project / run_docs.venv()))

    def run(text):
        return run_docs.run_page(page(text), str(project)), capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    "text, problem",
    [
        ("```sh\nfalse\ntrue\n```", "exit code 1"),
        ("```sh\necho told you; no-such-command\n```", "told you"),
        ("```python\nraise ValueError('so')\n```", "ValueError: so"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```", "expected:\n    2\n    printed:\n    1"),
        ("```sh\ntrue\n```\n\n```sh\ntest -e seen\n```", "README.md:5 "),
        ("```sh\nalias tensorboard=true\ntensorboard --logdir graphs\n```", "it did not answer"),
    ],
)
def test_a_block_that_fails_is_found(run_page, text, problem):
    failed, printed = run_page(text)
    assert failed == 1 and "FAILED" in printed and problem in printed


def test_blocks_run_in_order_and_in_one_folder(run_page):
    text = "```sh\necho 1 > seen\n```\n\n```python\nprint(open('seen').read())\n```\n\n```text\n1\n```\n"
    failed, printed = run_page(text + "<!-- not run: hours: three -->\n```sh\nfalse\n```\n")
    assert failed == 0 and printed.count(" ok\n") == 2 and "README.md:13 " in printed
    assert "not run (hours: three)" in printed


def test_a_server_is_stopped_when_it_answers(run_page):
    """By Ctrl-C; what answers here is Python's own server, under the name that is waited for."""
    text = """```sh
printf '#!/bin/sh\\necho http://127.0.0.1:$1/; exec python -m http.server --bind 127.0.0.1 $1\\n' > tensorboard
chmod +x tensorboard
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
./tensorboard $port
```"""
    assert run_page(text)[0] == 0
