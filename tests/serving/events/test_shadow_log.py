"""The log of a shadow gives back what was written, in bounded space, whenever a process was killed."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import StoreError
from mgoe.serving.events.shadow_log import ShadowLog, ShadowRecord, read_shadow_log
from tests.effort import up_to

IDS = st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5)


@st.composite
def records(draw: st.DrawFn) -> ShadowRecord:
    n, score = draw(st.integers(0, 3)), st.floats(0, 1, width=32)
    scores = st.lists(st.lists(score, min_size=2, max_size=2), min_size=n, max_size=n)
    return ShadowRecord(
        time=draw(st.integers(0, 2**53)), version="a", shadow="b", tasks=["click", "buy"],
        users=draw(st.lists(IDS, min_size=1, max_size=1)), items=draw(st.lists(IDS, min_size=n, max_size=n)),
        shown=draw(st.integers(0, n)), scores=draw(scores), shadow_scores=draw(scores),
        overlap=draw(st.none() | score),
    )  # fmt: skip


def record(number: int) -> ShadowRecord:
    return ShadowRecord(number, "a", "b", ["click"], [1], [2], 1, [[0.5]], [[0.25]], 1.0)


@given(st.lists(records()))
def test_what_is_written_is_read(written: list[ShadowRecord]):
    with tempfile.TemporaryDirectory() as folder:
        log = ShadowLog(Path(folder) / "shadow")
        for one in written:
            log.append(one)
        assert [*read_shadow_log(Path(folder) / "shadow")] == written
        log.close()


@up_to(20)
@given(count=st.integers(1, 300), part=st.integers(1, 2000), parts=st.integers(2, 5))
def test_the_newest_records_stay_in_bounded_space(count: int, part: int, parts: int):
    with tempfile.TemporaryDirectory() as folder:
        log = ShadowLog(Path(folder), most=parts * part, part=part)
        for number in range(count):
            log.append(record(number))
        line = 150
        assert sum(file.stat().st_size for file in Path(folder).iterdir()) <= parts * (part + line)
        found = [one.time for one in read_shadow_log(Path(folder))]
        assert found == [*range(count - len(found), count)]
        assert found
        log.close()


def test_a_line_that_a_killed_process_left_is_left_out(tmp_path: Path):
    log = ShadowLog(tmp_path)
    log.append(record(1))
    [file] = tmp_path.iterdir()
    with file.open("a") as open_file:
        open_file.write('{"time": 2')
    assert [one.time for one in read_shadow_log(tmp_path)] == [1]
    file.rename(tmp_path / "0.jsonl")
    log.append(record(3))  # to a file of its own, since the other one is gone
    assert [one.time for one in read_shadow_log(tmp_path)] == [1, 3]
    with file.open("a") as open_file:
        open_file.write("damaged\n")
    with pytest.raises(StoreError, match=r"line 1 is damaged .* remove the file"):
        list(read_shadow_log(tmp_path))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "shadow").write_text("a file")
    with pytest.raises(StoreError, match="shadow: cannot be written: File exists; free space"):
        ShadowLog(tmp_path / "shadow").append(record(1))
