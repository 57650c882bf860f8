"""Jobs in processes of their own, and parts of one job in several processes.

A job that fails or is killed stops only the jobs that need it. Parts make one result, so a process that fails
or is killed ends all of them.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock
from threadpoolctl import threadpool_limits

from mgoe._util.progress import hidden
from mgoe.errors import ConfigError, MgoeError

Part = TypeVar("Part")
Result = TypeVar("Result")
AHEAD = 2
"""Parts per process that are computed or wait for those before them."""
HELD = ".processes"
"""Folder of one lock per process, held while it runs."""


@dataclass(frozen=True)
class Job:
    """A call in a process of its own.

    Attributes:
        name: Name that other jobs refer to.
        work: A function of a module.
        args: Its arguments; must be picklable.
        needs: Names of jobs that must end first, if they are among those that run.
    """

    name: str
    work: Callable[..., Any]
    args: tuple[Any, ...]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: The job.
        value: Its result.
        failed: Why it failed, in a sentence.
        lost: Whether its process ended unasked and without a result, for example because memory ran out.
    """

    job: Job
    value: Any = None
    failed: str = ""
    lost: bool = False


def wait_for_orphans(folder: Path) -> None:
    """Wait for the processes of a killed run or comparison, which may write until they notice and end."""
    for file in (folder / HELD).glob("*"):
        with FileLock(file):
            file.unlink(missing_ok=True)


def run_jobs(
    jobs: Sequence[Job], at_once: int, folder: Path, threads: int = 1, until: float | None = None
) -> Generator[Outcome]:
    """Run jobs, earlier ones first, and yield outcomes as jobs end. Closing the generator stops running jobs.

    Args:
        jobs: Each after the jobs that it needs.
        at_once: Processes side by side.
        folder: Folder that they write to, for `wait_for_orphans`.
        threads: Threads of each process.
        until: `time.monotonic()` after which no job begins; running jobs are completed.

    Yields:
        Outcomes. A job that needs a failed one fails for the same reason. Jobs that did not begin have none.
    """
    context = _context(job.work for job in jobs)
    waiting, running, failed = list(jobs), {}, {}
    try:
        while waiting or running:
            for job in list(waiting):  # in order, so that a failure reaches all that need it
                reason = next((failed[need] for need in job.needs if need in failed), None)
                if reason is not None:
                    waiting.remove(job)
                    failed[job.name] = reason
                    yield Outcome(job, failed=reason)
            late = until is not None and time.monotonic() >= until
            left = {job.name for job in (*waiting, *(job for job, _ in running.values()))}
            for job in [job for job in waiting if not left.intersection(job.needs)][
                : 0 if late else at_once - len(running)
            ]:
                waiting.remove(job)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_child, args=(theirs, folder / HELD, threads, job), name=job.name
                )
                process.start()
                theirs.close()
                running[ours] = (job, process)
            if not running and (late or not waiting):
                return
            for connection in wait(list(running)) if running else ():
                job, process = running.pop(connection)  # pyright: ignore[reportArgumentType]
                outcome = _ended(job, connection, process)  # pyright: ignore[reportArgumentType]
                if outcome.failed:
                    failed[job.name] = outcome.failed
                yield outcome
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def in_order(
    work: Callable[..., Result], args: tuple[Any, ...], parts: Iterable[Part], jobs: int
) -> Generator[Result]:
    """Yield what a function makes of parts, in their order, computed by processes of one thread each.

    A few parts per process are in memory at a time. Closing the generator stops the processes.

    Args:
        work: A function of a module, which takes `args` and a part.
        args: Its first arguments; must be picklable.
        parts: Read in this process.
        jobs: Processes side by side.

    Raises:
        ConfigError: A process was killed, or cannot start.
        MgoeError: The function raised it, or reading the parts did.
    """
    pool = ProcessPoolExecutor(jobs, _context([work]), _begin, (1,))
    ahead = deque[Future[Result]]()
    try:
        for part in parts:
            try:
                ahead.append(pool.submit(work, *args, part))
            except OSError:  # Python starts a process of a pool that has just broken
                raise BrokenProcessPool from None
            if len(ahead) == AHEAD * jobs:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool:
        rule = f"a process of {jobs} was killed or cannot start; memory may have run out: take fewer"
        raise ConfigError("jobs", rule) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _context(works: Iterable[Callable[..., object]]) -> ForkServerContext:
    """Return how processes start: from one that has imported the modules of their work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({work.__module__ for work in works}))
    return context


def _begin(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends this one
    os.dup2(sys.stderr.fileno(), 1)  # only the parent prints results on standard output
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for libraries that are loaded later
    threadpool_limits(threads)
    torch.set_num_threads(threads)  # its MKL goes by MKL_NUM_THREADS otherwise


def _child(connection: Connection, held: Path, threads: int, job: Job) -> None:
    _begin(threads)
    try:
        held.mkdir(exist_ok=True)
        with hidden(), FileLock(held / str(os.getpid())):
            connection.send((job.work(*job.args), ""))
    except MgoeError as error:
        connection.send((None, " ".join(str(error).split())))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        connection.send((None, f"{type(error).__name__}: {' '.join(str(error).split())}"))


def _die_with_parent() -> None:
    """End with the parent: otherwise a resumed run would begin the same cell a second time."""
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
