"""Runs a program in several processes at once, as torchrun does.

They are copies of a process that has imported the library already, which takes seconds. The long form imports
it in each of them anew.
"""

import functools
import json
import multiprocessing
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.effort import MANY, SOAK

ROOT = Path(__file__).parents[3]
MOST_SECONDS = 300
COPIES = multiprocessing.get_context("fork")


def together(size: int, program: str, *arguments: str, anew: int = MANY * SOAK) -> None:
    """Run a program to its end.

    Args:
        size: Number of processes.
        program: Text of the program.
        arguments: What follows its name in `sys.argv`.
        anew: How many of the processes import what they need themselves.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(size),
        "OMP_NUM_THREADS": "1",
    }
    with TemporaryDirectory() as said:
        asked = {"size": size, "program": [program, *arguments], "environment": environment, "said": said}
        server = copied()
        assert server.stdin is not None
        assert server.stdout is not None
        print(json.dumps(asked | {"anew": anew}), file=server.stdin, flush=True)
        for rank, code in enumerate(json.loads(server.stdout.readline())):
            assert code == 0, f"{code}: {Path(said, str(rank)).read_text()[-3000:]}"


@functools.cache
def copied() -> subprocess.Popen[str]:
    """Start the process that is copied, which ends when this one does."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def serve() -> None:
    """Import what programs need, and run each that is asked for."""
    import mgoe.experiments  # noqa: F401
    import tests.training.distributed.test_process_group  # noqa: F401
    from mgoe.errors import MissingExtra
    from mgoe.training.distributed.sharded import torchrec

    with suppress(MissingExtra):
        torchrec()
    for line in sys.stdin:
        asked = json.loads(line)
        processes = [COPIES.Process(target=run, args=(rank, asked)) for rank in range(asked["size"])]
        for process in processes:
            process.start()
        for process in processes:
            process.join(MOST_SECONDS)
        for process in processes:
            process.kill()
            process.join()
        print(json.dumps([process.exitcode for process in processes]), flush=True)


def run(rank: int, asked: dict[str, Any]) -> None:
    """Run a program in this process; what it says goes to a file."""
    file = os.open(f"{asked['said']}/{rank}", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ |= asked["environment"] | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    program, *arguments = asked["program"]
    if rank < asked["anew"]:
        os.execv(sys.executable, [sys.executable, "-c", program, *arguments])
    sys.argv = ["-c", *arguments]
    exec(program, {"__name__": "__main__"})


if __name__ == "__main__":
    serve()
