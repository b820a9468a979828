"""What is printed goes where it should: descriptor 2 of C libraries, our own lines, and streams that nobody reads."""

import os
import signal
import subprocess
import sys
import threading
import unicodedata

import pytest

from src.console import (
    capture_stderr,
    display_width,
    escape_control_characters,
    ljust,
    restart_in_utf8,
    rjust,
    say,
    suppress_stderr,
)
from tests.conftest import REPOSITORY, python

PRELUDE = """
import os, signal, sys, threading
from src.console import *
from src.system import end_on_broken_pipe

def library(text):  # as C does, which knows nothing of sys.stderr
    os.write(2, text.encode() + b"\\n")
"""


def errors_of(code, cwd):
    """What a program writes to its standard error."""
    done = python("-c", PRELUDE + code, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def test_libraries_are_hidden_and_own_errors_are_not(tmp_path):
    code = """
with standard_streams():
    with suppress_stderr:
        library("hidden")
        print_error("found")
        print_note("seen")
    library("shown")
library("shown again")
"""
    assert errors_of(code, tmp_path) == ["error: found", "note: seen", "shown", "shown again"]


def test_where_own_errors_go_the_same_way_nothing_is_hidden(tmp_path):
    code = """
with suppress_stderr:
    library("shown")
    print_error("found")
with quiet():
    library("hidden")
    print_error("hidden as well")
"""
    assert errors_of(code, tmp_path) == ["shown", "error: found"]


def test_libraries_are_hidden_until_the_last_thread_leaves(tmp_path):
    code = """
inside, leave = threading.Event(), threading.Event()

def other():
    with suppress_stderr:
        inside.set()
        leave.wait()

with standard_streams():
    with suppress_stderr:
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait()
    library("hidden")
    leave.set()
    thread.join()
    library("shown")
    with suppress_stderr:
        library("hidden")
    library("shown again")
"""
    assert errors_of(code, tmp_path) == ["shown", "shown again"]


def test_what_libraries_write_can_be_captured(capfd):
    with capture_stderr() as captured:
        os.write(2, b"first\n")
        length = captured.length()
        thread = threading.Thread(target=lambda: os.write(2, b"second \xff"))
        thread.start()
        thread.join()
        assert (length, captured.length()) == (6, 14)
        assert captured.text_since(length) == "second \ufffd"
        with suppress_stderr:
            pass
    os.write(2, b"third")
    assert capfd.readouterr().err == "third"


def test_a_line_is_one_line():
    assert escape_control_characters("a\nb\x1b[2J é \u2028") == "a\\nb\\x1b[2J é \\u2028"


def test_who_says_something_to_nobody_goes_on(tmp_path):
    code = PRELUDE + "say('lost'); say('lost'); print_error('there')"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, cwd=str(tmp_path),
            env=dict(os.environ, PYTHONPATH=REPOSITORY),
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"error: there\n")


def test_say_prints_at_once(capfd):
    say("now")
    assert capfd.readouterr().out == "now\n"


def test_a_reader_that_leaves_ends_the_process_quietly(tmp_path):
    code = PRELUDE + "end_on_broken_pipe()\nwhile True: print('line', flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=str(tmp_path),
        env=dict(os.environ, PYTHONPATH=REPOSITORY),
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == (b"", -signal.SIGPIPE)
    process.stderr.close()


@pytest.mark.parametrize("encoding, starts_again", [("utf-8", False), ("ascii", True), ("iso8859-1", True)])
def test_names_of_files_are_taken_for_utf_8_in_any_locale(monkeypatch, encoding, starts_again):
    """Else a class called Bär would be BÃ¤r in the files that are written."""
    started = []
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    monkeypatch.setenv("LC_ALL", "of this test")
    restart_in_utf8()
    assert bool(started) == starts_again
    assert ("UTF-8" in os.environ["LC_ALL"].upper().replace("UTF8", "UTF-8")) == starts_again


@pytest.mark.parametrize("text, columns", [
    ("", 0), ("cat", 3), ("café", 4), ("猫", 2), ("고양이", 6), ("Ａ", 2), ("ｶ", 1), ("🐱", 2), ("قطة", 3), ("חָתוּל", 4),
])  # fmt: skip
def test_wide_letters_take_two_columns_and_combining_marks_none(text, columns):
    for form in ("NFC", "NFD"):  # as macOS stores file names
        assert display_width(unicodedata.normalize(form, text)) == columns
    assert ljust(text, 8) == text + " " * (8 - columns) and rjust(text, 8) == " " * (8 - columns) + text
    assert ljust(text, 0) == rjust(text, 0) == text
