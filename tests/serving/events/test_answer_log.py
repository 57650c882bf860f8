"""The log of answers gives back what was written, keeps what an experiment needs, and erases users."""

import tempfile
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.errors import DataError, StoreError
from mgoe.serving.events import answer_log
from mgoe.serving.events.answer_log import (
    BEFORE,
    IS_OF_SHADOW,
    SCHEMA,
    Answer,
    AnswerLog,
    read_answers,
    write_answers,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    items = draw(st.lists(TEXTS, max_size=4))
    n, maybe = len(items), st.none() | TEXTS
    chances = st.lists(st.floats(0, 1, exclude_min=True), min_size=n, max_size=n)
    score = st.floats(0, 1, width=32)
    scores = st.lists(st.lists(score, min_size=2, max_size=2), min_size=n, max_size=n)
    use = draw(st.sampled_from(["answer", "compare", "shadow"]))
    of_shadow = ["b", draw(st.integers(0, n)), draw(scores), draw(scores)] if use == "shadow" else []
    return Answer(
        draw(st.integers(0, 2**53)), draw(TEXTS), draw(st.sampled_from(["rank", "recommend"])), draw(maybe),
        draw(maybe), draw(maybe), draw(maybe), draw(maybe), draw(st.booleans()),
        use, "a", draw(st.sampled_from(["ok", "fallback", "error"])),
        draw(maybe), draw(st.integers(0, 10**7)), items, draw(st.none() | chances),
        draw(st.none() | st.lists(TEXTS, min_size=n, max_size=n)), *of_shadow,
    )  # fmt: skip


def answer(time: int, user: str | None = "u", experiment: str | None = None) -> Answer:
    return Answer(time, f"r{time}", "rank", user, user, experiment, None, None, False, "answer", "v", "ok",
                  None, 1, ["i"])  # fmt: skip


@given(st.lists(answers()))
def test_what_is_written_is_read_and_exported(written: list[Answer]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state, out = Path(folder) / "state", Path(folder) / "out.parquet"
        log = AnswerLog(state)
        for one in written:
            log.append(one)
        found = read_answers(state)
        assert found is not None
        assert [*found] == written
        assert [*found.where(IS_OF_SHADOW)] == [one for one in written if one.use == "shadow"]
        assert write_answers(state, out) == len(written)
        exported = pq.read_table(out)
        assert exported.schema == SCHEMA
        assert [Answer(**row) for row in exported.to_pylist()] == written
        log.close()


def test_the_newest_stay_and_what_an_experiment_needs(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "none", most=20)
    for time in range(100):
        log.append(answer(time))
    assert [one.time for one in log] == [*range(80, 100)]
    log = AnswerLog(tmp_path / "some", experiments=["e"], most=20)
    day = BEFORE // 28
    for time in range(100):
        log.append(answer(time * day, experiment="e" if time >= 50 else None))
    assert [one.time // day for one in log] == [*range(22, 100)]
    log = AnswerLog(tmp_path / "some", experiments=["another"], most=20)
    for time in range(100, 120):
        log.append(answer(time * day))
    assert [one.time // day for one in log] == [*range(100, 120)]


def of_shadow(time: int) -> Answer:
    return answer(time)._replace(use="shadow", served="s", shown=1, scores=[[0.5]], served_scores=[[0.25]])


def test_the_newest_of_a_shadow_stay_and_none_of_an_experiment_goes_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_log, "MOST_OF_SHADOW", 20)
    logs = [AnswerLog(tmp_path, most=40) for _ in range(2)]
    for time in range(5):
        logs[0].append(answer(time))
    for time in range(5, 80):
        logs[time % 2].append(of_shadow(time))
    for time in range(80, 85):
        logs[1].append(answer(time))
    for log in logs:
        assert [one.time for one in log.where(IS_OF_SHADOW)] == [*range(60, 80)]
        log.close()
    log = AnswerLog(tmp_path, experiments=["e"], most=1)
    monkeypatch.setattr(answer_log, "MOST_OF_SHADOW", 2)
    log.append(answer(100, experiment="e"), *map(of_shadow, range(101, 106)))
    log.append(of_shadow(106))
    assert [one.time for one in log if one.time >= 100] == [100, 106]


def test_an_answer_holds_nothing_of_what_it_lacks(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    log.append(answer(1), of_shadow(2))
    texts = [text for (text,) in log._store.read("SELECT answer FROM answers ORDER BY id")]
    assert texts[0].endswith('["i"]]')
    assert texts[1].endswith('["i"], null, null, "s", 1, [[0.5]], [[0.25]]]')
    log.close()


def test_answers_are_written_all_or_none(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    with pytest.raises(Exception, match="int"):
        log.append(answer(1), answer(2**70))
    assert [*log] == []
    log.close()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("a file")
    with pytest.raises(StoreError, match="cannot be used: File exists; check that the folder"):
        AnswerLog(tmp_path)


def test_answers_of_many_threads_share_transactions_and_none_is_lost(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    threads = [threading.Thread(target=log.append, args=(answer(n),)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.time for one in log) == [*range(64)]


def test_users_are_erased_up_to_their_time(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    for time in range(6):
        log.append(answer(time, f"user{time % 2}"))
    log.append(answer(2, None)._replace(unit="user1"))
    assert sorted(log.users({"user1": 3})) == ["user1"] * 3
    assert log.erase({"user1": 3}) == 3
    assert [one.time for one in log] == [0, 2, 4, 5]
    log.append(of_shadow(1)._replace(user="user1"), of_shadow(7))
    assert log.erase({"user1": 5}) == 2
    log.append(answer(-7))  # of somebody else, before 1970
    assert AnswerLog(tmp_path, make=False).erase({"user1": 9}) == 0
    assert [one.time for one in log] == [0, 2, 4, 7, -7]
    assert not any(b"user1" in file.read_bytes() for file in (tmp_path / "answers").iterdir())


def test_a_state_without_answers_is_one_sentence(tmp_path: Path) -> None:
    assert read_answers(tmp_path) is None
    with pytest.raises(DataError, match="must hold the log of answers, found none; name the --state"):
        write_answers(tmp_path, tmp_path / "out.parquet")
    assert not any(tmp_path.iterdir())
