"""Jobs in processes of their own: one that fails, or is killed for want of memory, takes nothing with it but what needs it."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from mgoe.errors import MgoeError

HELD = ".held"
"""File that each process holds while it runs."""


@dataclass(frozen=True)
class Job:
    """A call in a process of its own.

    Attributes:
        name: By which others need it.
        work: A function of a module.
        args: What it is called with; must be picklable.
        needs: Names of jobs that come before, where they are among those run.
    """

    name: str
    work: Callable[..., Any]
    args: tuple[Any, ...]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: Which.
        value: What it returned.
        failed: In a sentence, why it failed.
        lost: Whether its process ended without a word and nobody asked it to, as one does that is killed for want of memory.
    """

    job: Job
    value: Any = None
    failed: str = ""
    lost: bool = False


def wait_for_orphans(folder: Path) -> None:
    """Wait for the processes of a killed run or comparison. They end as soon as they notice, and until then may write."""
    if (folder / HELD).exists():
        with (folder / HELD).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)


def run_jobs(
    jobs: Sequence[Job], at_once: int, folder: Path, threads: int = 1, until: float | None = None
) -> Generator[Outcome]:
    """Run jobs, earlier ones first, and tell each one's end as it comes. Close it: only then do those that run end with it.

    Args:
        jobs: No job comes before one that it needs.
        at_once: Processes side by side.
        folder: That they write to, for `wait_for_orphans`.
        threads: Of each.
        until: `time.monotonic()` after which no job is begun any more; those that run come to their end.

    Yields:
        Outcomes; of a job that needs a failed one, failed for the same reason. What was not begun has none.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({job.work.__module__ for job in jobs}))
    waiting, running, failed = list(jobs), {}, {}
    left = {job.name for job in jobs}
    try:
        while waiting or running:
            for job in list(waiting):  # in order, so that a failure reaches all that need it
                reason = next((failed[need] for need in job.needs if need in failed), None)
                if reason is not None:
                    waiting.remove(job)
                    left.discard(job.name)
                    failed[job.name] = reason
                    yield Outcome(job, failed=reason)
            late = until is not None and time.monotonic() >= until
            for job in [job for job in waiting if not left.intersection(job.needs)][
                : 0 if late else at_once - len(running)
            ]:
                waiting.remove(job)
                connection, process = _start(context, job, folder, threads)
                running[connection] = (job, process)
            if not running:
                if late or not waiting:
                    return
                continue
            for connection in wait(list(running)):
                job, process = running.pop(connection)  # pyright: ignore[reportArgumentType]
                outcome = _ended(job, connection, process)  # pyright: ignore[reportArgumentType]
                left.discard(job.name)
                if outcome.failed:
                    failed[job.name] = outcome.failed
                yield outcome
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _start(context: Any, job: Job, folder: Path, threads: int) -> tuple[Connection, BaseProcess]:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_child, args=(theirs, folder / HELD, threads, job.work, job.args), name=job.name
    )
    process.start()
    theirs.close()
    return ours, process


def _child(
    connection: Connection, held: Path, threads: int, work: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends this one
    os.dup2(sys.stderr.fileno(), 1)  # results on standard output are the parent's alone
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(
        threads
    )  # for what is loaded later; the fork server has loaded the rest under its own
    threadpool_limits(threads)
    try:
        with held.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            connection.send((work(*args), ""))
    except MgoeError as error:
        connection.send((None, " ".join(str(error).split())))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        connection.send((None, f"{type(error).__name__}: {' '.join(str(error).split())}"))


def _die_with_parent() -> None:
    """A cell without the run it belongs to would be begun a second time beside itself."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _ended(job: Job, connection: Connection, process: BaseProcess) -> Outcome:
    lost = False
    try:
        value, failed = connection.recv()
    except EOFError:
        process.join()
        killed = " (killed; memory may have run out)" if process.exitcode == -signal.SIGKILL else ""
        value, failed = None, f"its process ended with code {process.exitcode}{killed}"
        lost = process.exitcode not in (-signal.SIGTERM, -signal.SIGINT)
    process.join()
    connection.close()
    return Outcome(job, value, failed, lost)
