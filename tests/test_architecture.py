"""Packages import only from packages listed above them, without circles, as the picture in the docs shows."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mgoe

SOURCE = Path(mgoe.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
LAYERS = (
    ("errors",),
    ("_util",),
    ("config",),
    ("work",),
    ("metrics",),
    ("data",),
    ("graph",),
    ("features",),
    ("retrieval",),
    ("models",),
    ("training",),
    ("evaluation",),
    ("topn",),
    ("bundle",),
    ("serving.events",),
    ("serving.online",),
    ("serving.scoring",),
    ("batch",),
    ("serving.http",),
    ("datasets", "simulation"),
    ("pipeline",),
    ("experiments",),
    ("lifecycle",),
    ("abtest",),
    ("ranker",),
    ("cli", "__main__"),
)
"""Top to bottom, as the architecture page lists them."""
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
FOUNDATION = {"errors", "_util", "config"}
"""Left out of the picture: every package may import them."""
LEAVES = {"datasets", "simulation"}
"""Imported by `pipeline`, `experiments` and `cli` alone."""
ALLOWED = {
    "metrics": set(),
    "features": FOUNDATION | {"data", "graph"},
    "retrieval": FOUNDATION | {"graph", "features"},
    "models": FOUNDATION | {"features"},
    "graph": FOUNDATION | {"data"},
    "datasets": FOUNDATION,
    "simulation": FOUNDATION | {"metrics", "data"},
}
"""Packages that know less than everything above them."""
FORBIDDEN = {
    "metrics": {"torch", "pandas", "pyarrow", "ibis", "duckdb", "polars", "pathlib"},
    "data": {"torch"},
    "graph": {"torch", "pandas", "polars"},
    "features": {"torch", "pandas", "polars"},
    "retrieval": {"torch", "pandas", "polars"},
    "models": {"pandas", "pyarrow", "ibis", "duckdb", "polars", "pathlib", "safetensors"},
    "datasets": {"torch", "pandas", "polars"},
    "simulation": {"torch"},
}
FILES = sorted(SOURCE.rglob("*.py"))
FOLDERS = sorted({file.parent for file in FILES})
of_each_folder = pytest.mark.parametrize(
    "folder", FOLDERS, ids=lambda f: f.relative_to(SOURCE.parent).as_posix()
)


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def package_of(module: str) -> str:
    """The entry of `LAYERS` that a module, named without `mgoe.`, belongs to."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "serving" and len(parts) > 1 else parts[0]


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file: Path) -> frozenset[str]:
    """Modules that a file imports anywhere, also those under `TYPE_CHECKING`."""
    return frozenset(_imports(tree(file)))


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{ast.unparse(child)}: imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from _imports(child)


@cache
def modules() -> dict[str, Path]:
    return {module_of(file): file for file in FILES}


def read_modules(file: Path) -> set[str]:
    """Modules of the library that a file imports, named without `mgoe.`."""
    found = set()
    for name in imports(file):
        parts = name.split(".")[1:] if name.startswith("mgoe.") else []
        while parts and ".".join(parts) not in modules():
            parts.pop()
        found.add(".".join(parts))
    return found - {"", "__init__", module_of(file)}


def read_packages(file: Path) -> set[str]:
    return {package_of(module) for module in read_modules(file)} & LEVEL.keys()


@of_each_folder
def test_a_package_imports_only_what_it_may(folder: Path):
    for file in folder.glob("*.py"):
        check_imports(file)


def check_imports(file: Path) -> None:
    package = package_of(module_of(file))
    if package in ("__init__", "serving"):
        return
    assert package in LEVEL, f"{package} is not in the architecture; docs/architecture.md lists packages"
    others = read_packages(file) - {package}
    below = {other for other in others if LEVEL[other] > LEVEL[package]}
    assert not below, f"{package} imports from packages below it: {below}"
    leaves = others & LEAVES
    assert not leaves or package in {"pipeline", "experiments", "cli"}, f"{package} imports {leaves}"
    assert others <= ALLOWED.get(package, others), f"{package} imports {others - ALLOWED[package]}"
    libraries = {name.split(".")[0] for name in imports(file)}
    unwanted = libraries & FORBIDDEN.get(package, set())
    assert not unwanted, f"{package} imports {unwanted}"


def test_no_modules_import_each_other_in_a_circle():
    """Imports for type checkers count too: who reads one module of a circle has to read all."""
    graph = {module: read_modules(file) for module, file in modules().items()}
    try:
        circle = None
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert circle is None


def test_the_picture_shows_the_imports():
    """Edges of the picture are the imports between packages that do not follow from other edges."""
    graph: dict[str, set[str]] = {}
    for module, file in modules().items():
        package = package_of(module)
        if package in LEVEL.keys() - FOUNDATION - {"__main__"}:
            graph.setdefault(package, set()).update(read_packages(file) - FOUNDATION - {package, "__main__"})

    def reached(package: str) -> set[str]:
        return graph[package].union(*(reached(other) for other in graph[package]))

    direct = {
        (package, other)
        for package, others in graph.items()
        for other in others
        if not any(other in reached(third) for third in others - {other})
    }
    picture, _ = re.findall(r"```mermaid\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = dict(re.findall(r"(\w+)\[([\w.]+)\]", picture))
    arrows = re.findall(r"(\w+) --> (\w+)", picture)
    drawn = {(names.get(b, b), names.get(a, a)) for a, b in arrows}
    assert drawn == direct, f"only in the picture: {drawn - direct}; only in the code: {direct - drawn}"


@of_each_folder
def test_no_pickle_is_read(folder: Path):
    for file in folder.glob("*.py"):
        libraries = {name.split(".")[0] for name in imports(file)}
        assert not {"pickle", "joblib", "dill", "cloudpickle"} & libraries, file
        text = file.read_text(encoding="utf-8")
        assert "torch.load" not in text, file
        assert "allow_pickle=True" not in text, file


@of_each_folder
def test_functions_and_modules_stay_readable(folder: Path):
    """No function exceeds 90 lines, no module 600, no line 110 columns but for comments to tools."""
    for file in folder.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert text.count("\n") <= 600, file
        lines = [re.sub(r"  # (type|pyright): ignore.*", "", line) for line in text.splitlines()]
        assert max(map(len, lines), default=0) <= 110, file
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno
                assert length < 90, f"{file}: {node.name} is too long"


def test_no_module_imports_private_names_of_another():
    found = []
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mgoe"):
                names = [alias.name for alias in node.names]
                private = [name for name in names if re.match(r"_(?!_|util$)", name)]
                found += [f"{file.relative_to(SOURCE)}: {node.module}.{name}" for name in private]
    assert found == []
