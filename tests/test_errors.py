"""User errors are one line with fields; the exit codes."""

import os
import pickle
import re

import pytest

from src.errors import ExitCode, InputError, OutOfMemoryError, did_you_mean
from tests.conftest import REPOSITORY
from utils.command_line import Parser


@pytest.mark.parametrize("error, line", [
    (InputError("setting lr", 0, "a number above 0"), "setting lr: found 0, expected a number above 0"),
    (InputError("setting lr", found=0), "setting lr: found 0"),
    (InputError("MODEL_ARCHS", expected="names"), "MODEL_ARCHS: expected names"),
    (InputError("unknown command trian", hint="did you mean train?"), "unknown command trian; did you mean train?"),
    (InputError("--top", "", "1 or more", "say 1"), "--top: found , expected 1 or more; say 1"),
    (InputError("folder a: cannot be read (Permission denied)"), "folder a: cannot be read (Permission denied)"),
    (OutOfMemoryError("image a.png", "little memory", "more"), "image a.png: found little memory, expected more"),
])  # fmt: skip
def test_an_error_is_one_line_of_its_fields(error, line):
    assert str(error) == line
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error) and vars(other) == vars(error) and str(other) == line


def test_the_fields_can_be_asked_for():
    error = InputError("setting lr", found=0, expected="a number above 0", hint="try 0.01")
    assert (error.subject, error.found, error.expected, error.hint) == ("setting lr", 0, "a number above 0", "try 0.01")
    error = InputError("nothing is right")
    assert (error.subject, error.found, error.expected, error.hint) == ("nothing is right", None, None, "")


def test_the_nearest_name_is_a_hint():
    assert did_you_mean("trian", ["train", "check"]) == "did you mean train?"
    assert did_you_mean("epochs", ["num_epoch"], "--") == "did you mean --num_epoch?"
    assert did_you_mean("x", ["train"]) == ""


@pytest.mark.parametrize("words, subject, found, hint", [
    (["--epochs", "3"], "unknown argument --epochs", None, "did you mean --num_epoch?"),
    (["--qqq", "3"], "unknown argument --qqq", None, "run --help lists the options"),
    (["--num_epoch"], "argument --num_epoch: expected one argument", None, "run --help lists the options"),
    (["--num_epoch", "--seeed"], "argument --num_epoch", "--seeed",
     "one that begins with a dash is given as --num_epoch=--seeed; run --help lists the options"),
])  # fmt: skip
def test_what_is_wrong_with_a_command_line_has_fields(words, subject, found, hint):
    parser = Parser(prog="run")
    parser.add_settings(["num_epoch", "seed"])
    with pytest.raises(InputError) as caught:
        parser.parse(words)
    assert (caught.value.subject, caught.value.found, caught.value.hint) == (subject, found, hint)


def test_the_table_of_exit_codes_has_all_of_them():
    with open(os.path.join(REPOSITORY, "docs", "commands.md"), encoding="utf-8") as page:
        table = page.read().split("## Exit codes")[1].split("\n\n")[1]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted(ExitCode)
