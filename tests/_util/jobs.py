"""Work for processes of their own."""

import os
import signal
import time
from pathlib import Path

import torch
from threadpoolctl import threadpool_info

from mgoe.data.log import connect
from mgoe.errors import DataError


def note(folder: Path, name: str) -> str:
    (folder / name).touch()
    return name


def refuse(what: str) -> None:
    raise DataError("a log", f"is no log of {what}")


def break_down() -> None:
    raise ZeroDivisionError("nothing to divide by")


def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def die_on(*_: object) -> None:
    die()


def refuse_part(*_: object) -> None:
    refuse("pairs")


def square_late(slowest: int, part: int) -> int:
    """Takes the longer, the earlier a part is."""
    time.sleep(0.01 * max(0, slowest - part))
    return part * part


def wait(folder: Path) -> None:
    note(folder, "begun")
    time.sleep(60)
    note(folder, "ended")


def speak(folder: Path) -> bool:
    """Prints, and tells whether the library that reads logs would draw a bar."""
    print("spoken", flush=True)
    con = connect(folder)
    [[bar]] = con.con.execute("SELECT current_setting('enable_progress_bar')").fetchall()
    return bar


def count_threads() -> set[int]:
    """Of torch, of BLAS and OpenMP, and what the graph's passes read."""
    return {
        torch.get_num_threads(),
        int(os.environ["OMP_NUM_THREADS"]),
        *(library["num_threads"] for library in threadpool_info()),
    }
