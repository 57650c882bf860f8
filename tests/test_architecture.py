"""A room imports only from rooms above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mgoe

SOURCE = Path(mgoe.__file__).parent
ROOMS = (
    ("errors", "_util", "config"),
    ("metrics",),
    ("data",),
    ("graph",),
    ("features",),
    ("models",),
    ("training",),
    ("evaluation",),
    ("bundle",),
    ("serving",),
    ("datasets", "simulation"),
    ("experiments",),
    ("cli", "__main__"),
)
"""Top to bottom, as `docs/architecture.md` lists them."""
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
ENDS = {"datasets", "simulation"}
"""Imported by experiments and the command alone."""
ALLOWED = {
    "metrics": set(),
    "models": {"errors", "config", "features"},
    "graph": {"errors", "config", "_util"},
    "datasets": {"errors", "config", "_util"},
    "simulation": {"errors", "config", "_util", "metrics", "data"},
}
"""Rooms that know less than all above them."""
FORBIDDEN = {
    "metrics": {"torch", "pandas", "pyarrow", "ibis", "duckdb", "polars", "pathlib"},
    "data": {"torch"},
    "graph": {"torch", "pandas", "polars"},
    "features": {"torch", "pandas", "polars"},
    "models": {"pandas", "pyarrow", "ibis", "duckdb", "polars", "pathlib", "safetensors"},
    "datasets": {"torch", "pandas", "polars"},
    "simulation": {"torch"},
}
FILES = sorted(SOURCE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
    """Modules that a file imports anywhere, functions and type checking included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            module = node.module or ""
            yield from (f"mgoe.{alias.name}" for alias in node.names) if module == "mgoe" else (module,)


def rooms_read(file: Path) -> set[str]:
    parts = [name.split(".") for name in imports(file)]
    return {part[1] for part in parts if part[0] == "mgoe" and len(part) > 1 and part[1] in LEVEL}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_a_room_knows_only_what_it_may(file: Path):
    room = room_of(file)
    if room == "__init__":
        return
    assert room in LEVEL, f"{room} is no room of the house; docs/architecture.md lists them"
    others = rooms_read(file) - {room}
    below = {other for other in others if LEVEL[other] > LEVEL[room]}
    assert not below, f"{room} imports from below: {below}"
    assert not others & ENDS or room in {"experiments", "cli"}, (
        f"{room} imports {others & ENDS}, which only experiments and cli may"
    )
    assert others <= ALLOWED.get(room, others), f"{room} imports {others - ALLOWED[room]}"
    packages = {name.split(".")[0] for name in imports(file)}
    assert not packages & FORBIDDEN.get(room, set()), f"{room} imports {packages & FORBIDDEN[room]}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_no_pickle_is_read(file: Path):
    assert not {"pickle", "joblib", "dill", "cloudpickle"} & {name.split(".")[0] for name in imports(file)}
    text = file.read_text(encoding="utf-8")
    assert "torch.load" not in text
    assert "allow_pickle=True" not in text


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_a_module_is_one_idea(file: Path):
    """No function passes 90 lines, no module 450."""
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 450
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 90, f"{node.name} fits no screen"


def test_no_module_imports_what_another_keeps_to_itself():
    found = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mgoe"):
                private = [
                    alias.name
                    for alias in node.names
                    if alias.name.startswith("_") and not alias.name.startswith("__")
                ]
                found += [f"{file.relative_to(SOURCE)}: {node.module}.{name}" for name in private]
    assert found == []
