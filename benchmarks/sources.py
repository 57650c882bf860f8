"""Which modules a command needs, and one hash of their code: whether a figure was measured by today's code.

Nothing is run: imports are read from syntax trees, wherever they stand. Followed are modules of `mgoe`,
`benchmarks` and `examples`; other packages are named. A name that a package passes on leads to the module
that defines it. A process that a module starts counts as an import: `"-m", "mgoe", "run"` of the command
`run`, `"-m", "benchmarks.coded"` of that module, and code in a string of what it imports.

The hash does not change with comments, layout and docstrings, those of attributes included.
"""

import ast
import hashlib
import shlex
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

from mgoe.errors import MgoeError

FOLDERS = {"mgoe": "src/mgoe", "benchmarks": "benchmarks", "examples": "examples"}
"""Packages that are followed, and where a checkout has them."""
DIGITS = 16
"""Of a hash, in hexadecimal."""


class FigureError(MgoeError):
    """A measured table, its file or the command that measures it is missing, damaged or of another value."""


class Sources:
    """The modules of a checkout.

    Args:
        root: Its folder.

    Example:
        >>> Sources(ROOT).needed("python benchmarks/line.py --events 1e6")
        {'benchmarks.line', 'benchmarks.measure', ..., 'mgoe.training.loop', ...}
    """

    def __init__(self, root: Path):
        self.root = root.resolve()

    def code(self, commands: list[str]) -> str:
        """Return the hash of all modules that commands need.

        Raises:
            FigureError: A command starts no module of this project.
        """
        found = sorted(set().union(*map(self.needed, commands)))
        texts = (f"{module} {self._digest(module)}\n" for module in found)
        return hashlib.sha256("".join(texts).encode()).hexdigest()[:DIGITS]

    def needed(self, command: str) -> set[str]:
        """Return the modules that a command needs.

        Raises:
            FigureError: It starts no module of this project.
        """
        return {module for module in self._reached(command) if self._file(module)}

    def packages(self, commands: list[str]) -> set[str]:
        """Return the packages outside this project that the modules of commands import."""
        found = set().union(*map(self._reached, commands))
        return {module.partition(".")[0] for module in found if not self._file(module)} - FOLDERS.keys()

    def _reached(self, command: str) -> set[str]:
        found, left = set(), self._started(command)
        while left:
            module = left.pop()
            if module not in found:
                found.add(module)
                left += self._imported(module) if self._file(module) else ()
        return found

    def _started(self, command: str) -> list[str]:
        """Modules that a command of a shell starts."""
        words = shlex.split(command)
        scripts = [word.removesuffix(".py").replace("/", ".") for word in words if word.endswith(".py")]
        if words[:1] == ["mgoe"]:
            found = self._commands(words[1:])
        elif "-m" in words[:-1]:
            found = self._processes(words[words.index("-m") :])
        else:
            found = [module for module in scripts[:1] if self._file(module)]
        if not found:
            raise FigureError(
                command,
                "it must begin with `mgoe`, `python benchmarks/NAME.py` or `python -m benchmarks.NAME`, "
                "and the checkout must have the module; correct it in the file of the figures",
            )
        return found

    @cache  # noqa: B019
    def _imported(self, module: str) -> tuple[str, ...]:
        """What a module imports, and the modules of processes that it starts."""
        tree, packages = self._tree(module), {}
        found: list[str] = []
        nodes = tree.body if self._is_lazy(module) else _at_run_time(tree)  # a lazy one passes names on
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                packages |= self._packages(node)
                found += self._import(node)
            elif isinstance(node, ast.Call | ast.Tuple | ast.List):
                words = [_text(part) for part in (node.args if isinstance(node, ast.Call) else node.elts)]
                found += self._processes(words)
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                    found += filter(self._file, words[:1])
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
                found += self._of_code(node.value)
        for node in _at_run_time(tree) if packages else ():
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                package = packages.get(node.value.id)
                found += self._homes(package, node.attr) if package else ()
        return tuple(dict.fromkeys(found))

    def _of_code(self, text: str) -> Iterator[str]:
        try:
            tree = ast.parse(text)
        except SyntaxError:  # prose
            return
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from self._import(node)

    def _import(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        for alias in node.names:
            if isinstance(node, ast.Import):
                yield alias.name
            else:
                yield from self._homes(node.module or "", alias.name)

    def _packages(self, node: ast.Import | ast.ImportFrom) -> dict[str, str]:
        """Lazy packages that an import gives a name, by that name."""
        start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        named = {alias.asname or alias.name: f"{start}{alias.name}" for alias in node.names}
        return {name: package for name, package in named.items() if self._is_lazy(package)}

    def _homes(self, package: str, name: str) -> list[str]:
        """The modules that `from package import name` needs."""
        if self._file(f"{package}.{name}"):
            return [f"{package}.{name}"]
        for module, given, own in self._passed_on(package):
            if own == name:
                return self._homes(module, given)
        functions = self._tree(package).body if self._is_lazy(package) else []
        inside = (one for one in functions if isinstance(one, ast.FunctionDef) and one.name == name)
        imports = (node for one in inside for node in ast.walk(one) if isinstance(node, ast.ImportFrom))
        return [package, *(module for node in imports for module in self._import(node))]

    @cache  # noqa: B019
    def _is_lazy(self, module: str) -> bool:
        """Whether a package imports what it passes on when it is asked for."""
        if not self._file(module):
            return False
        return any(
            isinstance(one, ast.FunctionDef) and one.name == "__getattr__" for one in self._tree(module).body
        )

    @cache  # noqa: B019
    def _passed_on(self, package: str) -> tuple[tuple[str, str, str], ...]:
        """Names that a package imports: from which module, which name, and as what."""
        file = self._file(package)
        if file is None or file.name != "__init__.py":
            return ()
        top = [
            one
            for node in self._tree(package).body
            for one in (node.body if isinstance(node, ast.If) else [node])
        ]
        return tuple(
            (node.module or "", alias.name, alias.asname or alias.name)
            for node in top
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package.split(".")[0]
            for alias in node.names
        )

    def _processes(self, words: list[str]) -> list[str]:
        """Modules that `-m MODULE` starts, each time that it stands among the words of a command."""
        found = []
        for at in (at for at, word in enumerate(words[:-1]) if word == "-m"):
            module = words[at + 1].partition(":")[0]
            found += (
                self._commands(words[at + 2 :]) if module == "mgoe" else [module] * bool(self._file(module))
            )
        return found

    def _commands(self, words: list[str]) -> list[str]:
        """The module of a command of `mgoe`, or the whole command line if none is named."""
        name = next((word for word in words if word in self._modules_of_commands), None)
        return [self._modules_of_commands[name]] if name else ["mgoe.__main__"]

    @cached_property
    def _modules_of_commands(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in sorted((self.root / FOLDERS["mgoe"] / "cli").glob("*.py")):
            module = f"mgoe.cli.{file.stem}"
            for node in self._tree(module).body:
                if isinstance(node, ast.FunctionDef) and not node.decorator_list:
                    found.setdefault(node.name, module)
                elif isinstance(node, ast.Assign) and "Typer" in ast.dump(node.value):
                    found[ast.unparse(node.targets[0])] = module
        return found

    @cache  # noqa: B019
    def _file(self, module: str) -> Path | None:
        first, _, rest = module.partition(".")
        if first not in FOLDERS:
            return None
        place = self.root / FOLDERS[first] / rest.replace(".", "/")
        return next((one for one in (place / "__init__.py", place.with_suffix(".py")) if one.is_file()), None)

    @cache  # noqa: B019
    def _tree(self, module: str) -> ast.Module:
        file = self._file(module)
        assert file is not None
        return ast.parse(file.read_text(encoding="utf-8"), str(file))

    @cache  # noqa: B019
    def _digest(self, module: str) -> str:
        return hashlib.sha256(repr(_shape(self._tree(module))).encode()).hexdigest()


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node, but for what only a type checker reads."""
    left = [node]
    while left:
        for child in ast.iter_child_nodes(left.pop()):
            if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
                yield child
                left.append(child)


def _shape(node: object) -> object:
    """A syntax tree as nested tuples, the same in all versions of Python: without places, statements that are
    only a string, empty fields, and empty parts of formatted strings.
    """
    if isinstance(node, list):
        return tuple(_shape(one) for one in node if not (isinstance(one, ast.Expr) and _text(one.value)))
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.JoinedStr):
        return tuple(_shape(one) for one in node.values if _text(one) or not isinstance(one, ast.Constant))
    fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
    return (type(node).__name__, *((name, _shape(value)) for name, value in fields))
