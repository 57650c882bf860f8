"""Lines of a shell on a page: commands of `mgoe` run in this process, and its service in a thread of it.

In the long form the service is a process.
"""

import shlex
import subprocess
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from typer.testing import CliRunner

from mgoe.cli import app
from mgoe.serving.http.settings import ServeSettings
from mgoe.serving.http.supervisor import Service
from tests.cli.test_serve import process
from tests.effort import SOAK

ADDRESS = "http://127.0.0.1:8000"


class Shell:
    """Runs lines of a shell: `mgoe` in this process, and others as they are.

    `pip` and `mgoe demo` have tests of their own, and this is a clone. The short form simulates no log.

    Args:
        stack: Ends the service.
    """

    def __init__(self, stack: ExitStack):
        self.stack = stack
        self.served = ""

    def __call__(self, line: str) -> str:
        """Run one line, and return what it prints."""
        if " && " in line:
            return "".join(map(self, line.split(" && ")))
        words = shlex.split(line, comments=True)
        skipped = [["mgoe", "demo"], *([] if SOAK else [["mgoe", "simulate"]])]
        if not words or words[0] in ("git", "cd", "pip") or words[:2] in skipped:
            return ""
        if words[:2] == ["mgoe", "serve"]:
            if SOAK:
                _, self.served, _ = self.stack.enter_context(process(Path(words[2]), *words[3:]))
                return ""
            engine = ("--engine", "torch")  # which has nothing to export
            with patch("mgoe.serving.http.supervisor.serve", self.serve):
                return self.mgoe([*words[1:], "--port", "0", *engine])
        if words[0] == "mgoe":
            return self.mgoe(words[1:])
        run = subprocess.run(
            line.replace(ADDRESS, self.served),
            shell=True,
            check=True,
            capture_output=True,
            text=True,
        )
        return run.stdout

    def mgoe(self, words: list[str]) -> str:
        """Run the command in this process."""
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{words}\n{result.output}\n{result.exception!r}"
        return result.output

    def serve(self, settings: ServeSettings) -> None:
        """Serve beside the other lines."""
        self.served = self.stack.enter_context(Service(settings)).url
