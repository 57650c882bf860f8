"""The graph of a whole run in two source trees, in turn: seconds per stage on one core, and its macro nodes.

    python benchmarks/snapshots.py OLD NEW CONFIG [--set KEY=VALUE ...] [--rounds 3] [--truth FOLDER]

OLD and NEW are checkouts, CONFIG is what `mgoe graph build` takes. Each round builds the graph with both, and
the next round in the reverse order. A first build with each does not count: it compiles kernels. Every build
is a process of its own with one thread.

One line per figure, `{name, value, unit, against, ratio}`, of the new tree against the old one:

- `snapshots.seconds`, `snapshots.seconds.STAGE`: medians, as the build notes them; ratio new over old;
- `snapshots.cpu_seconds`: processor time of the whole command, which also prepares the examples;
- `snapshots.information.RESOLUTION`: mutual information (nats) of the user and the item macro node of a unit
  of score, in the latest snapshot: how much macro nodes say of the pairs;
- `snapshots.nmi.SIDE.RESOLUTION`: normalised mutual information with the planted communities of a simulated
  log, whose folder is `--truth`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sklearn.metrics import normalized_mutual_info_score

from benchmarks.measure import child_seconds, line, use_cores
from benchmarks.world import communities
from mgoe.graph import MacroGraph
from mgoe.graph.matrices import matrix
from mgoe.graph.pair_rows import SIDES

ROUNDS = 3


def build(tree: Path, options: Sequence[str], out: Path) -> dict[str, float]:
    """Build a graph with a tree. Returns seconds by stage, and those of the whole build and the processor."""
    one = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    before = child_seconds()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "mgoe",
            "graph",
            "build",
            *options,
            "--out",
            str(out),
            "--overwrite",
            "--json",
        ],
        env=os.environ | one | {"PYTHONPATH": str(tree.resolve() / "src")},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    meta = json.loads((out / "graph" / "graph.json").read_text())
    stages = {f"seconds.{name.replace(' ', '_')}": spent["seconds"] for name, spent in meta["stages"].items()}
    return {"seconds": meta["seconds"], "cpu_seconds": child_seconds() - before, **stages}


def information(graph: MacroGraph, resolution: int) -> float:
    """Return the mutual information (nats) of both macro nodes of a unit of score."""
    share = matrix(graph, "user_macro", "item_macro", resolution).toarray()
    share /= share.sum()
    alone = share.sum(axis=1, keepdims=True) * share.sum(axis=0)
    seen = share > 0
    return float((share[seen] * np.log(share[seen] / alone[seen])).sum())


def quality(graph: MacroGraph, truth: Path | None) -> dict[str, float]:
    """Return what the macro nodes of the latest snapshot say, by the name of the figure."""
    sizes = ["-".join(map(str, size)) for size in graph.sizes]
    out = {f"information.{size}": information(graph, r) for r, size in enumerate(sizes)}
    planted = communities(truth, graph) if truth else {}
    for side in SIDES if truth else ():
        linked = np.asarray(graph.latest.arrays[f"{side}_sum"]) > 0
        for size, part in zip(sizes, graph.latest.resolutions, strict=True):
            macro = np.asarray(getattr(part, f"{side}_macro"))
            agreement = normalized_mutual_info_score(planted[side][linked], macro[linked])
            out[f"nmi.{side}.{size}"] = float(agreement)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("old", "new", "config"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--truth", type=Path, help="folder of a simulated log")
    options = parser.parse_args(arguments)
    given = [str(options.config), *(part for one in options.sets for part in ("--set", one))]
    trees = {"old": options.old, "new": options.new}
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as work:
        for number in range(options.rounds + 1):
            for name in list(trees)[:: 1 if number % 2 == 0 else -1]:
                took = build(trees[name], given, Path(work) / name)
                spent[name] += [took] if number else []
        found = {name: quality(MacroGraph.open(Path(work) / name / "graph"), options.truth) for name in trees}
    for figure in spent["new"][0]:
        old, new = (median(took[figure] for took in spent[name]) for name in trees)
        line(f"snapshots.{figure}", new, "s", old, new / old)
    for figure, new in found["new"].items():
        unit = "nats" if figure.startswith("information") else "1"
        line(f"snapshots.{figure}", new, unit, found["old"][figure], new / found["old"][figure])


if __name__ == "__main__":
    use_cores(1)
    main()
