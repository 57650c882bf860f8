"""Files that are there whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import OutputError
from mgoe.files import clear_unfinished, read_json, write_json

NAMES = st.text(st.characters(codec="ascii", exclude_categories=["C"], exclude_characters="/"), min_size=1, max_size=9)


@given(NAMES, st.sampled_from(["tmp", "partial"]), st.integers(1, 2**22))
def test_what_a_killed_process_left_goes_and_names_that_end_alike_stay(name: str, ending: str, process: int):
    with tempfile.TemporaryDirectory() as temporary:
        kept, left = (Path(temporary) / name / end for end in (f"x.{ending}", f".{name}.{process}.{ending}"))
        for folder in (kept, left):
            folder.mkdir(parents=True)
            (folder / f"in.{ending}").touch()
        (kept / f".{name}.json.{process}.{ending}").touch()
        clear_unfinished(Path(temporary))
        assert not left.exists()
        assert [path.name for path in kept.iterdir()] == [f"in.{ending}"]


def test_an_object_comes_back_from_its_file(tmp_path: Path):
    write_json(tmp_path / "a.json", {"a": [1, None, "ä"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, None, "ä"]}


@pytest.mark.parametrize("text", [None, b"", b"{", b"[]", b"\xff"])
def test_what_is_no_object_is_one_clear_error(tmp_path: Path, text: bytes | None):
    if text is not None:
        (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(OutputError, match=r"a\.json: .*writes it anew"):
        read_json(tmp_path / "a.json")
