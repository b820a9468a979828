"""The Makefile, with a stand-in for Python that installs nothing and prints the words it is called with."""

import os
import re
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY

# What .ci/find_python.sh asks; python -m venv; pip, which fails as those files say; import cv2; run.py.
PYTHON = r"""#!/bin/sh
case "$*" in
-c*version_info*) printf '%s\n' "3.11 2.21.0 $ME" ;;
"-m venv"*) echo "$*"; for folder do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python" ;;
*--no-index*) [ -e all-is-installed ] ;;
"-m pip download"*) [ ! -e download-fails ] || { cat download-fails; exit 1; } ;;
"-m pip install"*) echo "$*" >>pip-calls
    [ ! -e install-fails ] || { cat install-fails >&2; exit 1; }; echo "Collecting numpy==2.4.6" ;;
-c*) ;;
*) printf '<%s>\n' "$@" ;;
esac
"""
STRANGE = [
    "a (1) & b", "R&D", "it's", 'say "$HOME" `id`', "$(id)${x}#%;*", "back\\slash", "two  spaces", "$(shell touch hit)",
    "${eval X=$(shell touch hit)}$(file >hit,x)$(error x)",
]  # fmt: skip


def make_project(folder):
    """What the Makefile reads, and a Python for PATH."""
    for name in (".ci", "constraints"):
        shutil.copytree(os.path.join(REPOSITORY, name), str(folder / name))
    (folder / "convert").mkdir()
    (folder / "bin").mkdir()
    (folder / "data" / "digitspng").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "convert/requirements.txt"):
        shutil.copy(os.path.join(REPOSITORY, name), str(folder / name))
    (folder / "bin" / "python3").write_text(PYTHON)
    (folder / "bin" / "python3").chmod(0o755)
    return folder


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


def make(folder, *arguments, **variables):
    """Run make in a folder; returns (exit code, what it printed)."""
    python = str(folder / "bin" / "python3")
    environment = dict({"HOME": "/nowhere", "ME": python, "PATH": f"{folder}/bin:{os.environ['PATH']}"}, **variables)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(["make"] + list(arguments), cwd=str(folder), env=environment, **streams)
    assert not os.path.exists(str(folder / "hit"))  # by one of STRANGE
    return done.returncode, done.stdout.decode()


def words(printed):
    """The words that run.py was last called with."""
    return [line[1:-1] for line in printed.split("<run.py>")[-1].splitlines() if line.startswith("<")]


def installs(printed):
    return "Installing TensorFlow 2.21.0" in printed


@pytest.mark.parametrize("name", STRANGE)
def test_the_project_and_its_python_may_be_in_any_folder(tmp_path, name):
    folder = make_project(tmp_path / name)
    code, printed = make(folder, "run")
    assert code == 0 and installs(printed), printed
    assert printed.startswith(f"Python 3.11 with TensorFlow 2.21.0: {folder}/bin/python3\n")
    digits = ["--train_path", "data/digitspng", "--test_path", "data/digitspng/test"]
    assert words(printed) == digits + ["--num_epoch", "30", "--augment", "crop", "--step_rate", "15"]
    for arguments in (["predict"], ["predict", f"PYTHON={folder}/bin/python3"]):
        code, printed = make(folder, *arguments)
        assert code == 0 and not installs(printed), printed
        assert words(printed) == ["predict", "data/digitspng/test/7"]


@pytest.mark.parametrize("name", STRANGE)
def test_images_may_be_in_any_folder(project, name):
    (project / name / "train").mkdir(parents=True)
    code, printed = make(project, "run", f"DATASET={name}", "MODEL=mobilenetv2", "EPOCHS=4")
    assert code == 0, printed
    train, test = ["--train_path", f"{name}/train"], ["--test_path", f"{name}/test"]
    assert words(printed) == train + test + ["--model_arch", "mobilenetv2", "--num_epoch", "4"]
    assert words(make(project, "run", DATASET=name)[1]) == train + test
    assert words(make(project, "predict", f"IMAGES={name}/1.png")[1]) == ["predict", f"{name}/1.png"]
    code, printed = make(project, "run", f"DATASET=no {name}")
    assert code == 2 and f"\nerror: DATASET=no {name}: found no such folder, expected digits, cifar10" in printed


def test_the_settings_for_lenet_on_the_digits_are_given_for_nothing_else(project):
    digits, settings = ["--train_path", "data/digitspng", "--test_path", "data/digitspng/test"], ["--augment", "crop"]
    settings += ["--step_rate", "15"]
    (project / "data" / "cifar10png").mkdir()
    lenet = ["--model_arch", "lenet5", "--num_epoch", "3"]
    assert words(make(project, "run", "MODEL=lenet5", "EPOCHS=3")[1]) == digits + lenet + settings
    mobilenet = ["--model_arch", "mobilenetv2", "--num_epoch", "3"]
    assert words(make(project, "run", "MODEL=mobilenetv2", SETTINGS="--lr 9")[1]) == digits + mobilenet
    cifar10 = [word.replace("digits", "cifar10") for word in digits]
    assert words(make(project, "run", "DATASET=cifar10", "EPOCHS=3")[1]) == cifar10 + ["--num_epoch", "3"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_images_that_are_there_are_used(project, name):
    (project / "flowers").mkdir()
    paths = ["--train_path", "flowers", "--test_path", "flowers/test"]
    assert words(make(project, "run", "DATASET=flowers", valid="of the environment")[1]) == paths
    (project / "flowers" / name).mkdir()
    assert words(make(project, "run", "DATASET=flowers")[1]) == paths + ["--valid_path", f"flowers/{name}"]


def test_a_line_break_in_a_name_is_refused_in_one_line(tmp_path, project):
    for name in ("DATASET", "IMAGES", "PYTHON"):
        code, printed = make(project, "run", f"{name}=a\nb")
        assert code == 2 and printed.count("\n") == 1
        assert f"error: {name}: found a line break, which make cannot use; rename the folder" in printed
    code, printed = make(make_project(tmp_path / "a\nb"), "run")
    assert code == 2 and printed.count("\n") == 1
    assert "error: the folder of this project: found a line break, which make cannot use" in printed


def test_only_a_complete_environment_is_the_one_used_last(project):
    last = project / ".venv" / "last"
    (project / "install-fails").write_text("ERROR: No space left on device\n")
    code, printed = make(project, "run")
    assert code == 2 and "\nERROR: No space left on device\n" in printed
    assert not last.exists()
    (project / "install-fails").unlink()
    code, printed = make(project, "run")
    assert code == 0 and installs(printed) and "\n  numpy==2.4.6\n" in printed
    assert last.read_text() == "3.11\n"
    other = project / "python3.13"
    other.write_text(PYTHON.replace("3.11", "3.13"))
    other.chmod(0o755)
    (project / "install-fails").write_text("ERROR: No space left on device\n")
    assert make(project, "run", f"PYTHON={other}")[0] == 2
    assert last.read_text() == "3.11\n"
    (project / "install-fails").unlink()
    assert make(project, "run", f"PYTHON={other}")[0] == 0
    assert last.read_text() == "3.13\n"


# How pip 18.1 (of Python 3.6), 23.2 (3.11) and 26.3 report it; their lines before and after are left out.
BROKEN = "Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by "
CONNECTION = "<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7fe4bfb59150>"
UNREACHABLE = [
    (
        f"  {BROKEN}'NewConnectionError('{CONNECTION}: Failed to establish a new connection: [Errno -3] Temporary "
        "failure in name resolution',)': /simple/pip/",
        "https://pypi.org/simple: Temporary failure in name resolution",
    ),
    (
        "Looking in indexes: https://pypi.example/simple\n"
        f"WARNING: {BROKEN}'ProxyError('Cannot connect to proxy.', NewConnectionError('{CONNECTION}: Failed to "
        "establish a new connection: [Errno 111] Connection refused'))': /simple/pip/",
        "https://pypi.example/simple: Connection refused",
    ),
    (
        f"WARNING: {BROKEN}'NameResolutionError(\"HTTPSConnection(host='pypi.org', port=443): Failed to resolve "
        "'pypi.org' ([Errno -3] Temporary failure in name resolution)\")': /simple/pip/",
        "https://pypi.org/simple: Temporary failure in name resolution",
    ),
    (
        f"WARNING: {BROKEN}'ConnectTimeoutError({CONNECTION}, 'Connection to pypi.org timed out. (connect "
        "timeout=15)')': /simple/pip/",
        "https://pypi.org/simple: Connection to pypi.org timed out",
    ),
    (
        "ERROR: Exception:\nTraceback (most recent call last):\n\npip._vendor.urllib3.exceptions.ReadTimeoutError: "
        "HTTPSConnectionPool(host='files.pythonhosted.org', port=443): Read timed out.",
        "https://pypi.org/simple: Read timed out",
    ),
]


@pytest.mark.parametrize("step", ["download-fails", "install-fails"])
@pytest.mark.parametrize("messages, expected", UNREACHABLE)
def test_no_network_is_reported_in_one_line(project, messages, expected, step):
    (project / step).write_text(f"{messages}\nERROR: No matching distribution found for pip\n")
    code, printed = make(project, "venv")
    line, end = printed.split("one to four minutes:\n-m venv .venv/3.11\n")[1].splitlines()
    assert code == 2 and end.startswith("make: ***")
    hint = "check the network and its proxy, or see Offline installation in docs/setup.md"
    assert line == f"error: pip cannot reach {expected}; {hint}"
    with open(os.path.join(REPOSITORY, "docs", "setup.md"), encoding="utf-8") as file:
        assert "\n## Offline installation\n" in file.read()


def test_without_network_what_is_installed_already_is_enough(project):
    (project / "download-fails").write_text(UNREACHABLE[0][0])
    (project / "all-is-installed").touch()
    assert make(project, "venv")[0] == 0


def test_a_moved_or_copied_project_gets_a_new_environment(tmp_path, project):
    make(project, "run")
    note = "\n.venv/3.11 was made in another folder, and its scripts hold that path: it is made again\n"
    project.rename(tmp_path / "R&D")
    shutil.copytree(str(tmp_path / "R&D"), str(tmp_path / "it's"))
    for name in ("R&D", "it's"):
        code, printed = make(tmp_path / name, "predict")
        assert code == 0 and note in printed and "\n-m venv --clear .venv/3.11\n" in printed
        assert not installs(make(tmp_path / name, "predict")[1])


def test_a_link_to_a_project_or_to_its_environments_moves_nothing(tmp_path, project):
    make(project, "run")
    (tmp_path / "link").symlink_to(project)
    other = make_project(tmp_path / "other")
    (other / ".venv").symlink_to(project / ".venv")
    for name in os.listdir(REPOSITORY + "/constraints"):
        os.utime(str(other / "constraints" / name), (0, 0))
    os.utime(str(other / "requirements.txt"), (0, 0))
    for folder in (tmp_path / "link", other):
        assert not installs(make(folder, "predict")[1])


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_clone_made_by_git_for_windows_has_the_same_bytes(tmp_path, project):
    """Git for Windows comes with core.autocrlf=true, and WSL sees the files of such a clone."""
    shutil.copy(os.path.join(REPOSITORY, ".gitattributes"), str(project))
    for name in ("photo.png", "photo.jpg", "a.npz", "a.h5", "a.pb", "a.index", "a.data-00000-of-00001"):
        (project / name).write_bytes(b"looks like\r\ntext\n")
    settings = ["-c", "core.autocrlf=true", "-c", "user.name=a", "-c", "user.email=a@b.example"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"], ["clone", "-q", ".", "../clone"]):
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        subprocess.run(["git"] + settings + arguments, cwd=str(project), env=environment, check=True)
    files = [path.relative_to(project) for path in project.glob("**/*") if path.is_file()]
    for path in [path for path in files if path.parts[0] != ".git"]:
        assert (tmp_path / "clone" / path).read_bytes() == (project / path).read_bytes(), path
    assert make(tmp_path / "clone", "predict")[0] == 0


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("as_argument", [True, False])
def test_values_are_text_that_is_never_run(project, name, as_argument):
    arguments, variables = ([f"MODEL={name}"], {}) if as_argument else ([], {"MODEL": name})
    code, printed = make(project, "evaluate", *arguments, **variables)
    assert code == 0 and words(printed) == ["evaluate", "--model_arch", name], printed


@pytest.mark.parametrize("arguments, unknown", [
    (["EPOCH=3"], "EPOCH"), (["EPOCHS=3", "model=lenet5"], "model"), (["GPUS=$(shell touch hit)"], "GPUS"),
])  # fmt: skip
def test_a_misspelt_variable_is_refused(project, arguments, unknown):
    code, printed = make(project, "run", *arguments)
    expected = "expected one of PYTHON DATASET IMAGES MODEL EPOCHS QUICK PAGES GPU"
    assert code == 2 and f"error: variable {unknown}: found no such variable, {expected}." in printed
    assert make(project, "run", EPOCH="3", LANG="C")[0] == 0  # of the environment, which is for other programs, too


@pytest.mark.parametrize(
    "pages, expected", [("", []), ("README.md docs/it's.md $(id)", ["README.md", "docs/it's.md", "$(id)"])]
)
def test_the_pages_of_the_guide_are_words_of_the_command(project, pages, expected):
    code, printed = make(project, "guide", f"PAGES={pages}")
    assert code == 0 and printed.splitlines()[-len(expected) - 1 :] == ["<tests/docs/run_docs.py>"] + [
        f"<{x}>" for x in expected
    ]


def cuda_installations(project):
    """Requirement and constraints of each."""
    calls = (project / "pip-calls").read_text().splitlines()
    return [line.split("--progress-bar off ")[1] for line in calls if "cuda" in line]


def test_gpu_installs_the_libraries_of_cuda_once_with_any_command(project):
    assert make(project, "venv")[0] == make(project, "run", "GPU=0")[0] == 0
    assert cuda_installations(project) == []
    code, printed = make(project, "venv", "GPU=1")
    assert code == 0 and not installs(printed), printed
    assert "\nInstalling CUDA's libraries into .venv/3.11, once; this downloads 2.8 GB:\n  numpy==2.4.6\n" in printed
    code, printed = make(project, "run", "GPU=1")
    assert code == 0 and "CUDA" not in printed and words(printed)
    assert cuda_installations(project) == ["tensorflow[and-cuda]==2.21.0 --constraint constraints/3.11.txt"]
    (project / ".venv").rename(project / "elsewhere")
    code, printed = make(project, "run", GPU="1")
    assert code == 0 and installs(printed) and "CUDA" in printed
    assert cuda_installations(project) == ["tensorflow[and-cuda]==2.21.0 --constraint constraints/3.11.txt"] * 2


def test_an_interrupted_installation_of_cuda_is_repeated(project):
    assert make(project, "venv")[0] == 0
    (project / "install-fails").write_text("ERROR: No space left on device\n")
    code, printed = make(project, "run", "GPU=1")
    assert code == 2 and "\nERROR: No space left on device\n" in printed and "<run.py>" not in printed
    (project / "install-fails").unlink()
    assert make(project, "run", "GPU=1")[0] == 0
    assert len(cuda_installations(project)) == 2


def test_gpu_is_refused_in_one_line_where_it_cannot_be_installed(project):
    python = project / "bin" / "python3"
    for value in ("yes", "2", "1 1", "$(shell touch hit)"):
        code, printed = make(project, "venv", f"GPU={value}")
        assert code == 2 and printed.count("\n") == 1 and f"error: GPU={value}: expected 1." in printed
    assert make(project, "clean", "GPU=yes")[0] == 0
    python.write_text(PYTHON.replace("3.11 2.21.0", "3.7 1.14.0"))
    code, printed = make(project, "venv", "GPU=1")
    assert code == 2 and printed.count("\n") == 1
    assert "error: GPU=1: found TensorFlow 1.14, expected 2.21 (Python 3.11 to 3.13); pip has no CUDA 10.0" in printed
    assert make(project, "venv")[0] == 0


# What tensorflow 2.21.0 declares for its extra and-cuda, with the numbers that begin a version it may have.
AND_CUDA = {
    "cublas": "12.", "cuda-cupti": "12.", "cuda-nvcc": "12.", "cuda-nvrtc": "12.", "cuda-runtime": "12.", "cudnn": "9.",
    "cufft": "11.", "curand": "10.", "cusolver": "11.", "cusparse": "12.", "nccl": "2.", "nvjitlink": "12.",
}  # fmt: skip


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_libraries_of_cuda_are_pinned(version):
    with open(os.path.join(REPOSITORY, "constraints", f"{version}.txt")) as file:
        found = dict(re.findall("^nvidia-(.+)-cu12==(.+)$", file.read(), re.MULTILINE))
    assert found.keys() == AND_CUDA.keys()
    assert all(found[name].startswith(major) for name, major in AND_CUDA.items())
