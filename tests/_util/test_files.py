"""Files are complete or absent."""

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe._util import files
from mgoe._util.files import (
    atomic_file,
    atomic_folder,
    clear_unfinished,
    durable_folder,
    exclusive,
    read_json,
    write_json,
    write_text,
)
from mgoe.errors import OutputError

NAMES = st.text(
    st.characters(codec="ascii", exclude_categories=["C"], exclude_characters="/"), min_size=1, max_size=9
)


@given(NAMES, st.sampled_from(["tmp", "partial"]), st.integers(1, 2**22))
def test_unfinished_files_of_killed_processes_are_removed_and_similar_names_stay(
    name: str, ending: str, process: int
):
    with tempfile.TemporaryDirectory() as temporary:
        kept, left = (Path(temporary) / name / end for end in (f"x.{ending}", f".{name}.{process}.{ending}"))
        for folder in (kept, left):
            folder.mkdir(parents=True)
            (folder / f"in.{ending}").touch()
        (kept / f".{name}.json.{process}.{ending}").touch()
        clear_unfinished(Path(temporary))
        assert not left.exists()
        assert [path.name for path in kept.iterdir()] == [f"in.{ending}"]


def test_json_objects_survive_a_round_trip(tmp_path: Path):
    write_json(tmp_path / "a.json", {"a": [1, None, "ä"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, None, "ä"]}


def test_json_has_null_for_what_is_no_number_and_nothing_for_what_it_lacks(tmp_path: Path):
    values = {"a": math.nan, "b": np.float32("inf"), "c": np.int64(3), "d": [np.float64(0.5)]}
    write_json(tmp_path / "a.json", values)
    assert read_json(tmp_path / "a.json") == {"a": None, "b": None, "c": 3, "d": [0.5]}
    with pytest.raises((TypeError, ValueError), match="object"):
        write_json(tmp_path / "b.json", {"a": object()})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("text", [None, b"", b"{", b"[]", b"\xff"])
def test_a_file_without_a_json_object_is_one_clear_error(tmp_path: Path, text: bytes | None):
    if text is not None:
        (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(OutputError, match=r"a\.json: .*run the command that wrote it again"):
        read_json(tmp_path / "a.json")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    place = tmp_path / "new" / "a.txt"

    def write(text: str) -> None:
        with atomic_file(place) as unfinished:
            unfinished.write_text(text[:2])
            unfinished.write_text(text.encode("ascii").decode())

    write("old")
    with pytest.raises(UnicodeEncodeError):
        write("neü")
    assert place.read_text() == "old"
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("place", ["file/a.txt", "folder"])
def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path, place: str):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        OutputError, match=f"{place}: cannot be written: .*; choose a folder you may write, or free space"
    ):
        write_text(tmp_path / place, "text")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def fill(place: Path, text: str) -> None:
    with atomic_folder(place) as folder:
        for name in "abc":
            (folder / name).write_text(text)


def texts(place: Path) -> set[str]:
    return {(place / name).read_text() for name in "abc"}


@pytest.mark.parametrize("moves", range(4))
def test_a_killed_process_leaves_the_old_folder_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
):
    """The process is killed before one of its moves, or while it removes the old folder."""
    place, done, move = tmp_path / "place", [], os.replace
    fill(place, "old")

    def replace(*names: Any) -> None:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(move(*names))

    with monkeypatch.context() as killed:
        killed.setattr(os, "replace", replace)
        killed.setattr(shutil, "rmtree", lambda *_, **__: None)
        if moves < 3:
            with pytest.raises(KeyboardInterrupt):
                fill(place, "new")
        else:
            fill(place, "new")
    assert not place.exists() or texts(place) == {"new" if moves >= 2 else "old"}
    with pytest.raises(ZeroDivisionError), atomic_folder(place):
        raise ZeroDivisionError
    assert texts(place) == {"new" if moves >= 2 else "old"}
    fill(place, "newest")
    assert texts(place) == {"newest"}
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_the_working_directory_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fill(Path("."), "new")
    assert texts(tmp_path / "here") == {"new"}
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError, match="here: cannot be written"):
        write_text(Path("."), "text")


def test_a_holder_that_ends_while_it_is_looked_at_is_still_said_to_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def gone(*_: object, **__: object) -> str:
        raise FileNotFoundError

    with exclusive(tmp_path / "run", "a run"):
        monkeypatch.setattr(Path, "read_text", gone)
        with (
            pytest.raises(OutputError, match="another process is at work there"),
            exclusive(tmp_path / "run", "a run"),
        ):
            pass


def test_a_file_that_cannot_be_copied_is_not_said_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    write_text(source / "a", "text")
    denied = PermissionError(13, "Permission denied", str(source / "a"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for who is not root
    for error in (denied, shutil.Error([(str(source / "a"), str(out / "a"), str(denied))])):
        rule = r"source/a: cannot be read: .*Permission denied.*; let"
        with pytest.raises(OutputError, match=rule), atomic_folder(out):
            raise error


def test_a_durable_folder_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done: list[str] = []
    monkeypatch.setattr(files, "sync", lambda path: done.append(path.name))
    monkeypatch.setattr(files.os, "rename", lambda *_: done.append("named"))
    with durable_folder(tmp_path / "kept") as folder:
        (folder / "rest.onnx").touch()
    assert done == ["rest.onnx", folder.name, "named", tmp_path.name]
    assert not folder.exists()


def test_of_two_durable_folders_the_first_stays(tmp_path: Path):
    with durable_folder(tmp_path / "kept") as slow, durable_folder(tmp_path / "kept") as fast:
        for folder in (slow, fast):
            (folder / "by").write_text(folder.name)
    assert (tmp_path / "kept" / "by").read_text() == fast.name
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(OSError, match="missing"), durable_folder(tmp_path / "missing" / "kept"):
        pass
