"""Lines of `results.jsonl`."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import mgoe
from mgoe import __version__, experiments
from mgoe.pipeline import records
from mgoe.pipeline.plan import best_of
from tests.experiments.tiny import settings


def test_a_line_that_was_cut_off_is_no_line(tmp_path: Path):
    whole = {"log": "a", "model": "m", "seed": 0, "state": "finished"}
    (tmp_path / "results.jsonl").write_text('{"log": "a", "mod')
    records.append(tmp_path, whole)
    assert records.latest(tmp_path) == {("a", "m", 0): whole}


def test_a_line_may_hold_what_ends_one_elsewhere(tmp_path: Path):
    line = {"log": "a", "model": "m\u2028\u2029\x85", "seed": 0, "state": "failed", "reason": "\r\n"}
    records.append(tmp_path, line)
    records.append(tmp_path, line | {"seed": 1})
    assert list(records.read(tmp_path / "results.jsonl")) == [line, line | {"seed": 1}]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with a folder in it, in a repository of its own that has one revision."""
    folder = tmp_path / "repository" / "src" / "package"
    (folder / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/deep.py", "../beside.py"):
        (folder / name).write_text("")
    git(tmp_path / "repository", "init", "--quiet")
    git(folder, "add", ".")
    git(
        folder,
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "commit.gpgsign=false",
        "commit",
        "--quiet",
        "--message",
        "first",
    )
    return folder


def git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("changed", ["__init__.py", "inner/deep.py"])
def test_a_revision_tells_of_a_change_anywhere_in_the_package(package: Path, changed: str):
    (package / changed).write_text("1")
    assert records.revision(package) == git(package, "rev-parse", "HEAD")[:12] + "+"


def test_a_revision_tells_of_no_change_beside_the_package(package: Path):
    (package.parent / "beside.py").write_text("1")
    assert records.revision(package) == git(package, "rev-parse", "HEAD")[:12]


def test_a_package_that_no_repository_keeps_is_known_by_its_version(package: Path, tmp_path: Path):
    installed = shutil.copytree(package, package.parent / ".venv" / "package")
    (package.parent / ".gitignore").write_text(".venv")
    assert records.revision(installed) == __version__
    assert records.revision(shutil.copytree(package, tmp_path / "alone")) == __version__


def test_the_source_is_the_whole_library():
    assert Path(mgoe.__file__).parent == records.SOURCE


def test_a_cell_without_a_search_tells_none(
    own: dict[str, Any], searched: Path, tmp_path: Path, in_this_process: None
):
    out, key = shutil.copytree(searched, tmp_path / "out"), ("tiny", "shared-bottom", 0)
    assert records.latest(out)[key]["tuned"] == best_of(out / "logs/tiny/tuned/shared-bottom.json")
    experiments.compare(settings(own), out, overwrite=True)
    assert records.latest(out)[key]["tuned"] is None
