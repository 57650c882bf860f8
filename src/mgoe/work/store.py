"""The store: all nodes of a folder, what must be removed of them, and what is left to make."""

import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mgoe.errors import OutputError
from mgoe.work.node import NOTE, Node

if TYPE_CHECKING:
    from mgoe._util.processes import Outcome

RULES = {
    NOTE: "cannot be checked against the settings: its note, {note}, is {before}",
    "log": "was made of another log: the files hold something else now",
    "algorithm": "was made by another version of mgoe, which computes it in another way",
    "values.changes": "was changed since it was built, by `mgoe graph update` or `mgoe graph forget`",
    "values.seed": "settings were searched with seed {before}, which must stay the first of `seeds`, found "
    "{asked}; put {before} first",  # other paths than that of a search name their seed
}
"""What a message says of a node, by what differs; for a setting it names key and values."""


class Store:
    """The nodes of a run, a comparison or any other folder of results.

    Args:
        folder: The folder; processes that make nodes leave their locks in it.
        nodes: Each once, and after those that it is made from.

    Example:
        >>> file = Path("greeting.txt")
        >>> node = Node(
        ...     "text", "a greeting", file, {"words": 2}, 1, "", file.write_text, ("good day",),
        ...     files=(file,), results=(file,),
        ... )
        >>> store = Store(Path(), [node])
        >>> node.state()
        'absent'
        >>> [(node.title, outcome.failed) for node, outcome in store.bring([node])]
        [('a greeting', '')]
        >>> node.state()
        'done'
    """

    def __init__(self, folder: Path, nodes: Iterable[Node]):
        self.folder = folder
        self.nodes = {node.path: node for node in nodes}

    def stale(self, overwrite: bool) -> list[Node]:
        """Return the nodes that were made with other settings or from another log, and must be removed.

        Args:
            overwrite: Whether finished results may be removed.

        Raises:
            OutputError: A finished result would have to be removed and must not be.
        """
        found = [(node, one) for node in self.nodes.values() if (one := node.difference()) is not None]
        for node, (key, before, asked) in found:
            if node.is_result and not overwrite:
                name = key.removeprefix("values.").removeprefix("before.")
                rule = RULES.get(key, f"was made with another `{name}`")
                raise OutputError(
                    node.path,
                    f"{rule.format(note=node.note, before=before, asked=asked)}; choose another folder, or "
                    "overwrite it to compute again what differs",
                )
        return [node for node, _ in found]

    def damaged(self) -> list[Node]:
        """Return the nodes that are finished, and must be made again.

        Raises:
            OutputError: A file is there and may not be read.
        """
        return [node for node in self.nodes.values() if node.is_result and node.damaged()]

    def bring(
        self, nodes: Sequence[Node], jobs: int = 0, threads: int = 1, until: float | None = None
    ) -> "Generator[tuple[Node, Outcome]]":
        """Make the nodes that are not finished, and before each what it needs, and yield how each ended.

        Finished nodes need nothing. Closing the generator stops what runs.

        Args:
            nodes: What is wanted, in order.
            jobs: Processes side by side. 0 makes everything in this process, and raises what fails.
            threads: Threads of each process.
            until: `time.monotonic()` after which nothing begins.

        Yields:
            Nodes that ended. What needs a failed node fails for the same reason.
        """
        from mgoe._util.processes import Job, Outcome, run_jobs  # late: it imports torch

        left = self.unfinished(nodes)
        for node in left.values():
            node.begin()
        titles = {node.title: node for node in left.values()}
        work = [
            Job(
                node.title,
                node.make,
                node.args,
                tuple(left[one.path].title for one in node.inputs if one.path in left),
            )
            for node in left.values()
        ]
        if jobs:
            with closing(run_jobs(work, jobs, self.folder, threads, until)) as outcomes:
                for outcome in outcomes:
                    yield titles[outcome.job.name], outcome
            return
        for job in work:
            if until is not None and time.monotonic() >= until:
                return
            yield titles[job.name], Outcome(job, job.work(*job.args))

    def unfinished(self, nodes: Sequence[Node]) -> dict[Path, Node]:
        """Return what is left to make some nodes, each after those that it needs, by path."""
        found, seen = dict[Path, Node](), set[Path]()

        def need(node: Node) -> None:
            if node.path in seen:
                return
            seen.add(node.path)
            if not node.finished:
                for one in node.inputs:
                    need(one)
                found[node.path] = node

        for node in nodes:
            need(node)
        return found
