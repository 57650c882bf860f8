"""Jobs in processes of their own."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from mgoe._util.processes import AHEAD, HELD, Job, in_order, run_jobs, wait_for_orphans
from mgoe.errors import ConfigError, DataError
from tests._util import jobs
from tests.effort import slow


def test_what_fails_takes_nothing_with_it_but_what_needs_it(tmp_path: Path):
    wanted = [
        Job("refused", jobs.refuse, ("clicks",)),
        Job("after", jobs.note, (tmp_path, "after"), ("refused",)),
        Job("after that", jobs.note, (tmp_path, "after that"), ("after",)),
        Job("broken", jobs.break_down, ()),
        Job("killed", jobs.die, ()),
        Job("stopped", jobs.die, (signal.SIGTERM,)),
        Job("first", jobs.note, (tmp_path, "first")),
        Job("second", jobs.note, (tmp_path, "second"), ("first", "long done")),
    ]
    ends = {outcome.job.name: outcome for outcome in run_jobs(wanted, 2, tmp_path)}
    assert ends.keys() == {job.name for job in wanted}
    assert (
        ends["refused"].failed
        == ends["after"].failed
        == ends["after that"].failed
        == "a log: is no log of clicks"
    )
    assert ends["broken"].failed == "ZeroDivisionError: nothing to divide by"
    assert "memory may have run out" in ends["killed"].failed
    assert {name for name, end in ends.items() if end.lost} == {"killed"}
    assert ends["second"].value == "second"
    assert {path.name for path in tmp_path.iterdir()} == {HELD, "first", "second"}
    assert list(ends).index("first") < list(ends).index("second")


def test_nothing_is_begun_when_time_is_up(tmp_path: Path):
    assert (
        list(run_jobs([Job("a", jobs.note, (tmp_path, "a"))], 1, tmp_path, until=time.monotonic() - 1)) == []
    )
    assert not any(tmp_path.iterdir())


def test_an_interrupt_ends_the_processes_that_run(tmp_path: Path):
    running = run_jobs(
        [Job("quick", jobs.note, (tmp_path, "quick")), Job("slow", jobs.wait, (tmp_path,))], 2, tmp_path
    )
    assert next(running).job.name == "quick"
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt())
    wait_for_orphans(tmp_path)
    assert not (tmp_path / "ended").exists()


@slow
def test_standard_output_is_left_to_whoever_asked(tmp_path: Path):
    program = f"""
from pathlib import Path
from mgoe._util.processes import HELD, Job, run_jobs, wait_for_orphans
from tests._util import jobs
folder = Path({str(tmp_path)!r})
print([(outcome.value, outcome.failed) for outcome in run_jobs([Job("a", jobs.speak, (folder,))], 1, folder)])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[(False, '')]\n"
    assert "spoken" in ended.stderr


def test_every_call_gives_its_processes_their_own_number_of_threads(tmp_path: Path):
    for threads in (2, 1, 2):
        [outcome] = run_jobs([Job("a", jobs.count_threads, ())], 1, tmp_path, threads)
        assert outcome.value == {threads}, outcome.failed


def test_the_environment_of_whoever_asked_stays_as_it_was(tmp_path: Path):
    before = dict(os.environ)
    for _ in run_jobs([Job("a", jobs.note, (tmp_path, "a"))], 1, tmp_path, threads=7):
        assert dict(os.environ) == before
    assert dict(os.environ) == before


def test_the_processes_of_a_killed_comparison_are_waited_for(tmp_path: Path):
    wait_for_orphans(tmp_path)  # nothing was ever begun
    waiting = threading.Thread(target=wait_for_orphans, args=(tmp_path,))
    (tmp_path / HELD).mkdir()
    with FileLock(tmp_path / HELD / "1234"):
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_process_holds_the_folder_while_it_runs(tmp_path: Path):
    running = run_jobs(
        [Job("quick", jobs.note, (tmp_path, "quick")), Job("slow", jobs.wait, (tmp_path,))], 2, tmp_path
    )
    next(running)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    assert any(is_held(file) for file in (tmp_path / HELD).iterdir())
    running.close()
    wait_for_orphans(tmp_path)


def is_held(file: Path) -> bool:
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True


def test_parts_come_in_their_order_and_few_are_read_ahead():
    read = []
    parts = (read.append(part) or part for part in range(12))
    for number, found in enumerate(in_order(jobs.square_late, (8,), parts, 2)):
        assert found == number**2
        assert len(read) <= number + AHEAD * 2
    assert len(read) == 12


def test_a_part_that_fails_ends_all_of_them():
    for work, error, said in (
        (jobs.refuse_part, DataError, "a log: is no log of pairs"),
        (
            jobs.die_on,
            ConfigError,
            "jobs: a process of 2 was killed or cannot start; memory may have run out: take fewer",
        ),
    ):
        with pytest.raises(error) as raised:
            list(in_order(work, (Path(),), range(20), 2))
        assert str(raised.value) == said
