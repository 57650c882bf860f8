"""How much code there is, and how deep a reader has to go: a table with one column per source tree.

    python benchmarks/structure.py TREE [TREE ...] [--no-run] [--repeated]

A tree is a checkout; what is measured is its `src/mgoe`:

- statements: nodes of the syntax tree that are statements; docstrings, also those of constants, are left
  out; imports among them, which are counted apart too;
- circles: groups of modules that need each other, imports for type checkers included;
- repeated passages: passages of six or more lines that also stand elsewhere, blank lines and imports left
  out; `--repeated` lists them;
- lines of the median and of the longest module;
- frames: functions of the library on the stack of `mgoe run` when the first kernel of the graph is entered,
  and when the loss is, that kernel and the loss included; and on that of `/v1/rank` when ONNX Runtime is
  asked for the first product. `--no-run` leaves them out;
- exported names: those that packages name in `__all__`, or list in place of it;
- files per package.
"""

import argparse
import ast
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

PASSAGE = 6
"""Lines of the shortest passage that counts as repeated."""
IMPORTS = (ast.Import, ast.ImportFrom)
WAIT = 120
"""Seconds until a service must have exported its model."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees", type=Path, nargs="+", metavar="TREE")
    parser.add_argument(
        "--no-run", action="store_true", help="leave out the frames, for which `mgoe run` runs"
    )
    parser.add_argument("--repeated", action="store_true", help="list the repeated passages")
    parser.add_argument("--inside", choices=INSIDE, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(INSIDE[given.inside](given.trees[0] / "src" / "mgoe")))
        return
    columns = [measured(tree.resolve(), not given.no_run) for tree in given.trees]
    names = list(dict.fromkeys(name for column in columns for name in column))
    names.sort(key=lambda name: name.startswith("files in"))
    print("| |", " | ".join(str(tree) for tree in given.trees), "|")
    print("|---|" + "---:|" * len(columns))
    for name in names:
        print(f"| {name} |", " | ".join(f"{column.get(name, 0):,}" for column in columns), "|")
    for tree in given.trees if given.repeated else ():
        print(f"\nRepeated in {tree}:")
        for passage in repeated_passages(modules(tree.resolve() / "src" / "mgoe")):
            print(f"- {passage.lines} lines: {passage.first} and {passage.second}")


def measured(tree: Path, run: bool) -> dict[str, int]:
    """Measure one tree.

    Args:
        tree: A checkout.
        run: Count frames too.
    """
    package = tree / "src" / "mgoe"
    found = modules(package)
    lengths = [len(module.text.splitlines()) for module in found]
    longest = max(zip(lengths, found, strict=True), key=lambda pair: pair[0])[1].name
    passages = repeated_passages(found)
    figures = {
        "statements": sum(statements(module.tree) for module in found),
        "imports among them": sum(isinstance(node, IMPORTS) for one in found for node in ast.walk(one.tree)),
        "modules": len(found),
        "circles": circles(found),
        "repeated passages": len(passages),
        "lines of repeated passages": sum(passage.lines for passage in passages),
        "lines of the median module": round(median(lengths)),
        "lines of the longest module": max(lengths),
    }
    print(f"{tree}: the longest module is {longest}", file=sys.stderr)
    if run:
        figures |= in_child(tree, "frames")
    figures |= in_child(tree, "exports")
    files = Counter(module.name.split("/")[0] if "/" in module.name else "(top)" for module in found)
    return figures | {f"files in {name}": count for name, count in sorted(files.items())}


@dataclass(frozen=True)
class Module:
    """A source file.

    Attributes:
        name: Its path below the package.
        text: What it holds.
        tree: Its syntax tree.
    """

    name: str
    text: str
    tree: ast.Module


def modules(package: Path) -> list[Module]:
    """Read all source files of a package, by name."""
    files = sorted(package.rglob("*.py"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    return [
        Module(str(file.relative_to(package)), text, ast.parse(text))
        for file, text in zip(files, texts, strict=True)
    ]


def statements(tree: ast.Module) -> int:
    """Count the statements of a syntax tree, texts that stand alone excluded: they are docstrings.

    Example:
        >>> statements(ast.parse('"Docstring."\\nif True:\\n    x = 1'))
        2
    """
    return sum(isinstance(node, ast.stmt) and not is_docstring(node) for node in ast.walk(tree))


def is_docstring(node: ast.stmt) -> bool:
    """See whether a statement is a text and nothing else."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def circles(found: list[Module]) -> int:
    """Count the groups of two or more modules that import each other, directly or through others."""
    names = [
        ".".join(["mgoe", *Path(module.name).with_suffix("").parts]).removesuffix(".__init__")
        for module in found
    ]
    places = {name: number for number, name in enumerate(names) if name != "mgoe"}  # it has the version alone
    pairs = [
        (number, places[name])
        for number, module in enumerate(found)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        for name in [f"{node.module}.{alias.name}", node.module]
        if name in places and not (name == node.module and f"{name}.{alias.name}" in places)
    ]
    edges = coo_array((np.ones(len(pairs)), tuple(zip(*pairs, strict=True))), shape=(len(names),) * 2)
    _, group = connected_components(edges, connection="strong")
    return sum(size > 1 for size in Counter(group.tolist()).values())


@dataclass(frozen=True)
class Passage:
    """Lines that stand twice.

    Attributes:
        lines: How many.
        first, second: Where, as `module:line`.
    """

    lines: int
    first: str
    second: str


def repeated_passages(found: list[Module]) -> list[Passage]:
    """Find the passages that stand twice, each as long as it can be, in the order of modules."""
    written = [list(code_lines(module)) for module in found]
    seen: dict[tuple[str, ...], tuple[int, int]] = {}
    passages: list[Passage] = []
    for number, lines in enumerate(written):
        row = 0
        while row + PASSAGE <= len(lines):
            window = tuple(text for _, text in lines[row : row + PASSAGE])
            before = seen.setdefault(window, (number, row))
            length = common(written[before[0]][before[1] :], lines[row:]) if before != (number, row) else 0
            if length < PASSAGE or (before[0] == number and before[1] + PASSAGE > row):  # it overlaps itself
                row += 1
                continue
            places = [f"{found[n].name}:{written[n][at][0]}" for n, at in (before, (number, row))]
            passages.append(Passage(length, *places))
            row += length
    return passages


def code_lines(module: Module) -> Iterator[tuple[int, str]]:
    """Yield numbers and texts of a module's lines without indentation, blank lines and imports left out."""
    imports = {
        row
        for node in ast.walk(module.tree)
        if isinstance(node, IMPORTS)
        for row in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    for row, text in enumerate(module.text.splitlines(), 1):
        if text.strip() and row not in imports:
            yield row, text.strip()


def common(one: list[tuple[int, str]], other: list[tuple[int, str]]) -> int:
    """Count the lines that two passages have in common from their start."""
    count = 0
    for (_, left), (_, right) in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


# --- In a process of its own, which imports the tree


def in_child(tree: Path, what: str) -> dict[str, int]:
    """Run a part of this script on another tree's library and return what it found."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    environment = os.environ | threads | {"PYTHONPATH": str(tree / "src")}
    command = [sys.executable, __file__, str(tree), "--inside", what]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def exports(package: Path) -> dict[str, int]:
    """Count the names that packages export.

    Raises:
        RuntimeError: The library that Python imports is not the one that is measured.
    """
    library = importlib.import_module("mgoe")
    if not Path(str(library.__file__)).is_relative_to(package):
        raise RuntimeError(f"the library must come from {package}, found {library.__file__}")
    count = 0
    names = [part.name for part in pkgutil.walk_packages([str(package)], "mgoe.") if part.ispkg]
    for name in ["mgoe", *names]:
        part = importlib.import_module(name)
        listed = getattr(part, "__all__", None)
        count += len(
            listed if listed is not None else list(part.__dir__()) if "__dir__" in vars(part) else ()
        )
    return {"exported names": count}


def frames(package: Path) -> dict[str, int]:
    """Count the library's frames at the first graph kernel and loss of a run on a tiny log, and at the first
    product of a ranking by its bundle.
    """
    from numba.core import dispatcher

    stacks: dict[str, list[str]] = {}

    def note(what: str, frame: Any, stack: list[str]) -> None:
        if what in stacks:
            return
        while frame is not None:
            if frame.f_code.co_filename.startswith(str(package)):
                stack.append(f"{Path(frame.f_code.co_filename).relative_to(package)}:{frame.f_code.co_name}")
            frame = frame.f_back
        stacks[what] = stack[::-1]

    kind = dispatcher.Dispatcher
    compiled = kind.__call__

    def enter(kernel: Any, *arguments: Any, **named: Any) -> Any:
        if kernel.py_func.__module__.startswith("mgoe.graph"):
            note("graph kernel", sys._getframe(1), [kernel.py_func.__qualname__])
        return compiled(kernel, *arguments, **named)

    def enter_loss(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if (
            event == "call"
            and code.co_name == "loss"
            and code.co_filename.startswith(str(package / "models"))
        ):
            note("loss", frame, [])
            sys.setprofile(None)

    kind.__call__ = enter  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as work:
        run_tiny(Path(work), enter_loss)
        rank_once(Path(work), lambda: note("product of /v1/rank", sys._getframe(2), []))
    for what, stack in stacks.items():
        print(f"{what}: {' > '.join(stack)}", file=sys.stderr)
    return {f"frames at the {what}": len(stack) for what, stack in stacks.items()}


def run_tiny(work: Path, profile: Any) -> None:
    """Run the command on a tiny simulated log, in this process."""
    command = importlib.import_module("mgoe.cli").main
    sizes = ["--users", "200", "--items", "100", "--exposures", "12000", "--form", "events"]
    communities = ["--set", "user_communities=4", "--set", "item_communities=5"]
    config = {
        "data": {"log": str(work / "log" / "events")},
        "tasks": ["click", "buy"],
        "split": {"cuts": [0.4, 0.6, 0.8]},
        "models": ["mgoe"],
        "training": {"epochs": 1},
        "evaluation": {"ranking_queries": 0},
    }
    (work / "run.yaml").write_text(json.dumps(config))  # JSON is YAML
    for arguments in (["simulate", "--out", work / "log", *sizes, *communities],
                      ["run", work / "run.yaml", "--out", work / "run"]):  # fmt: skip
        sys.argv = ["mgoe", *map(str, arguments)]
        try:
            sys.setprofile(profile)
            command()
        except SystemExit as end:
            if end.code:
                raise
        finally:
            sys.setprofile(None)


def rank_once(work: Path, entered: Callable[[], None]) -> None:
    """Ask the service of the run's bundle for rankings until one comes from ONNX Runtime."""
    import onnxruntime
    from pyarrow import parquet
    from starlette.testclient import TestClient

    service = importlib.import_module("mgoe.serving.http.service")
    settings = service.ServeSettings(bundle=work / "run" / "bundle", state=work / "state")
    users, items = (parquet.read_table(settings.bundle / f"{side}.parquet")[0] for side in ("users", "items"))
    asked = {"user": users[0].as_py(), "candidates": items[:5].to_pylist()}
    run, calls = onnxruntime.InferenceSession.run, []

    def enter(*arguments: Any, **named: Any) -> Any:
        entered()
        calls.append(1)
        return run(*arguments, **named)

    with TestClient(service.application(settings), f"http://127.0.0.1:{settings.port}") as client:
        onnxruntime.InferenceSession.run = enter
        end = time.monotonic() + WAIT
        while not calls and time.monotonic() < end:
            client.post("/v1/rank", json=asked).raise_for_status()
            time.sleep(0.5)  # models are exported while nobody asks


INSIDE = {"frames": frames, "exports": exports}

if __name__ == "__main__":
    main()
