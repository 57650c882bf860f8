"""Reference pages of the site, written from the code, so that nothing is typed twice."""

import ast
import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import typer
from navigation import group_pages
from pydantic import BaseModel
from typer.cli import get_docs_for_click

from mgoe.cli import app as commands
from mgoe.config import ComparisonSettings, RunSettings
from mgoe.lifecycle import CycleSettings
from mgoe.models import BASES
from mgoe.serving.http.app import create_app
from mgoe.serving.http.settings import Limits
from mgoe.serving.http.tokens import ALL, Tokens
from mgoe.simulation import VisitSettings, WorldSettings

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "mgoe",
    "mgoe.ranker",
    "mgoe.experiments",
    "mgoe.bundle",
    "mgoe.batch",
    "mgoe.config",
    "mgoe.data",
    "mgoe.graph",
    "mgoe.features",
    "mgoe.models",
    "mgoe.training",
    "mgoe.evaluation",
    "mgoe.evaluation.report",
    "mgoe.metrics",
    "mgoe.retrieval",
    "mgoe.topn",
    "mgoe.topn.baselines",
    "mgoe.serving",
    "mgoe.lifecycle",
    "mgoe.simulation",
    "mgoe.datasets",
    "mgoe.cli",
    "mgoe.errors",
)
"""What has public names, in the order of the reference."""
PYTHON = """# Python reference

Every public name with its types, from the docstrings. Examples in them are run by the tests.
[Python](../docs/python.md) is the introduction.
"""
SETTINGS = """# Settings reference

Every setting with its type, default and meaning, from the code. [Settings](../docs/settings.md)
explains them. `mgoe schema` prints the JSON Schema, with which [editors](../docs/cli.md#editors) complete and
check a file.
"""
COMMANDS = """From `mgoe --help`. [Command line](../docs/cli.md) has what commands have in common, and the
keys of their JSON.
"""
HTTP = """# HTTP reference

Every route with what it takes and answers, from the OpenAPI document that a service has at `/openapi.json`.
[Serving](../docs/serving.md#api) explains the routes with examples.
"""


def write(folder: Path) -> None:
    """Write every reference page into a folder. A page that is already the same keeps its time."""
    pages = {f"{package}.rst": python_page(package) for package in PACKAGES} | {
        "python.md": index_of_python(),
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        "http.md": http_page(),
        "examples.md": examples_page(),
        "gallery.md": gallery_page(),
        **group_pages(),
    }
    folder.mkdir(exist_ok=True)
    for page in folder.iterdir():
        if page.name not in pages:
            page.unlink()
    for name, text in pages.items():
        page = folder / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


# Python


class Public(NamedTuple):
    """A public name of a package.

    Attributes:
        name: The name.
        kind: `autoclass` or `autofunction` of Sphinx, or `data`.
        home: The package whose page describes it.
    """

    name: str
    kind: str
    home: str


def public_names(package: str) -> list[Public]:
    """Return the public names of a package, functions and classes before constants."""
    module = import_module(package)
    names = [name for name in exported(module) if not inspect.ismodule(getattr(module, name))]
    found = [_public(module, name) for name in names]
    return sorted(found, key=lambda public: (public.kind == "data", public.name.casefold()))


def exported(module: ModuleType) -> list[str]:
    """Return what a module exports: its `__all__`, else what it lists, else what it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    if "__dir__" in vars(module):
        return dir(module)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def _public(module: ModuleType, name: str) -> Public:
    value = getattr(module, name)
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return Public(name, "data", module.__name__)
    exporting = [package for package in PACKAGES if getattr(import_module(package), name, None) is value]
    nearest = [package for package in exporting if f"{value.__module__}.".startswith(f"{package}.")]
    home = max(nearest or exporting, key=len)
    return Public(name, "autoclass" if inspect.isclass(value) else "autofunction", home)


def python_page(package: str) -> str:
    """Return the reference of a package, which Sphinx completes from its docstrings."""
    module = import_module(package)
    purpose = inspect.cleandoc(module.__doc__ or "").split("\n\n")[0]
    lines = [package, "=" * len(package), "", f".. py:module:: {package}", "", purpose, ""]
    for name in exported(module):
        if inspect.ismodule(getattr(module, name)):
            lines += [f"**{name}**: see :doc:`{package}.{name}`", ""]
    for name, kind, home in public_names(package):
        if home != package:
            lines += [f"**{name}**: see :py:obj:`{home}.{name}`", ""]
        elif kind == "data":
            lines += [f".. py:data:: {package}.{name}", *_value(getattr(module, name)), ""]
            lines += [f"   {line}" for line in meaning(module, name).splitlines()] + [""]
        else:
            lines += [f".. {kind}:: {package}.{name}", *_members(getattr(module, name)), ""]
    return "\n".join(lines)


def _members(value: object) -> list[str]:
    """Return the options of Sphinx for the members of a class. Keys of settings have a page of their own."""
    if not inspect.isclass(value):
        return []
    if not issubclass(value, BaseModel):
        return ["   :members:"]
    left_out = ", ".join(["model_config", *value.model_fields])
    return ["   :members:", f"   :exclude-members: {left_out}", "", "   Keys: :doc:`settings`."]


def _value(value: object) -> list[str]:
    shown = repr(value)
    return [f"   :value: {shown}"] if len(shown) < 80 and " at 0x" not in shown and "\n" not in shown else []


def meaning(module: ModuleType, name: str) -> str:
    """Return the text below the assignment of a constant, in the module where it is assigned."""
    body = ast.parse(inspect.getsource(module)).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ImportFrom) and name in (alias.asname or alias.name for alias in node.names):
            return meaning(import_module(node.module or ""), name)
        if isinstance(node, ast.If):  # imported for types alone; the module loads it when it is asked for
            for inner in node.body:
                if isinstance(inner, ast.ImportFrom) and name in (alias.name for alias in inner.names):
                    return meaning(import_module(inner.module or ""), name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        assigned = [part for target in targets if target is not None for part in ast.walk(target)]
        if name in (part.id for part in assigned if isinstance(part, ast.Name)):
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            return inspect.cleandoc(after.value.value) if said else ""
    return ""


def index_of_python() -> str:
    """Return the page that lists the packages."""
    first = [
        f"- [`{package}`]({package}.rst): {_first(import_module(package).__doc__ or '')}"
        for package in PACKAGES
    ]
    inner = ["```{toctree}", ":hidden:", "", *PACKAGES, "```"]
    return "\n".join([PYTHON, *first, "", *inner, ""])


# Settings


def settings_page() -> str:
    """Return a table of every setting: its type, default and meaning."""
    parts = {
        "A run": (RunSettings, "The file of `mgoe run`, `mgoe train` and `mgoe graph build`."),
        "A comparison": (ComparisonSettings, "The file of `mgoe compare`."),
        "A cycle": (CycleSettings, "The file of `mgoe cycle`."),
        "A world": (WorldSettings, "What `mgoe simulate` draws."),
        "Visits": (VisitSettings, "What users of a world do with `mgoe simulate --serve`."),
    }
    lines = [SETTINGS]
    done: set[str] = set()
    for title, (kind, purpose) in parts.items():
        schema = kind.model_json_schema()
        lines += [f"## {title}", "", purpose, ""]
        for name, part in {kind.__name__: schema, **schema.get("$defs", {})}.items():
            if name not in done and "properties" in part:
                done.add(name)
                lines += [f"### {name}", "", _first(part.get("description", "")), "", *_settings(part), ""]
    lines += ["## Options of models", "", "What `options` of a model takes, by its `base`.", ""]
    by_options: dict[type[BaseModel], list[str]] = {}
    for base, model in BASES.items():
        by_options.setdefault(model.Options, []).append(base)
    for options, bases in by_options.items():
        if options.model_fields:
            lines += [f"### {', '.join(f'`{base}`' for base in bases)}", ""]
            lines += [*_settings(options.model_json_schema()), ""]
    return "\n".join(lines)


def _settings(schema: dict[str, Any]) -> list[str]:
    required = schema.get("required", [])
    rows = [
        (
            f"`{name}`",
            "required" if name in required else _default(field),
            f"{type_of(field)}. {_cell(field)}".strip(),
        )
        for name, field in schema["properties"].items()
    ]
    return table(("key", "default", "type and meaning"), rows)


def _cell(field: dict[str, Any]) -> str:
    return " ".join(field.get("description", "").split())


def _default(field: dict[str, Any]) -> str:
    default = field.get("default")
    if default is None:
        return "none"
    if "$ref" in field or ("[" in type_of(field) and len(str(default)) > 60):
        return "see its own keys"
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def type_of(schema: dict[str, Any]) -> str:
    """Return the type of a value as a reader says it, from its JSON Schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "allOf" in schema:
        return type_of(schema["allOf"][0])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(
                dict.fromkeys(type_of(part) for part in schema[several] if part.get("type") != "null")
            )
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {type_of(schema['items'])}" if schema.get("items") else "list"
    values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    if kind == "object" and isinstance(values[0], dict):
        return f"mapping to {type_of(values[0])}"
    said = {"string": "text", "boolean": "true or false", "object": "mapping"}.get(kind, kind)
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [
        f"{sign} {schema[key]:,}" for key, sign in bounds.items() if isinstance(schema.get(key), int | float)
    ]
    return " ".join([said, ", ".join(limits)]).strip()


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table."""
    cells = [
        head,
        tuple("---" for _ in head),
        *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows),
    ]
    return [f"| {' | '.join(row)} |" for row in cells]


def _first(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


# Commands


def commands_page() -> str:
    """Return every command with its arguments and options, as Typer describes them."""
    command: Any = typer.main.get_command(commands)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="mgoe", title="Command reference")
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n?", "", text)  # shortened; the contents list them too
    text = re.sub(r"\[bold\]Examples\[/\]\n((?:\n+  .*)+)", _examples, text)
    return text.replace("\n\n", f"\n\n{COMMANDS}\n", 1)


def _examples(found: re.Match[str]) -> str:
    """Return the examples of a help text, which has marks for a terminal, as a block of code."""
    lines = [line.strip() for line in found[1].splitlines() if line.strip()]
    shown = [re.sub(r"\[dim\](.*?)\[/\]", r"# \1", line).replace("\\[", "[") for line in lines]
    return "**Examples**:\n\n```sh\n" + "\n".join(shown) + "\n```\n"


# HTTP


def http_page() -> str:
    """Return every route with its bodies, from the OpenAPI document of the service."""
    document = openapi()
    schemas = document["components"]["schemas"]
    lines = [HTTP]
    api = [
        route["responses"]
        for path, methods in document["paths"].items()
        for route in methods.values()
        if path.startswith("/v1/")
    ]
    common = {code: said for code, said in api[0].items() if all(other.get(code) == said for other in api)}
    lines += ["Every route below `/v1/` may also answer:", "", *_answers(common), ""]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            lines += [f"## {method.upper()} {path}", "", f"{route.get('summary', '')}.", ""]
            if "description" in route:
                lines += [route["description"], ""]
            lines += _route(route, common if path.startswith("/v1/") else {})
    lines += ["## Bodies", ""]
    for name, schema in sorted(schemas.items()):
        if "properties" in schema:
            lines += [f"### {name}", "", _first(schema.get("description", "")), "", *_settings(schema), ""]
    return "\n".join(lines)


def _route(route: dict[str, Any], common: dict[str, Any]) -> list[str]:
    lines = []
    parameters = [
        (
            f"`{p['name']}`",
            p["in"],
            type_of(p["schema"]),
            "required" if p.get("required") else "optional",
            _cell(p),
        )
        for p in route.get("parameters", [])
    ]
    if parameters:
        lines += [*table(("parameter", "in", "type", "", "meaning"), parameters), ""]
    for needed in route.get("security", []):
        lines += [f"Scope of the token: `{needed['bearer'][0]}`.", ""]
    if "requestBody" in route:
        lines += [f"Body: {_content(route['requestBody'])}.", ""]
    own = {code: answer for code, answer in route["responses"].items() if code not in common}
    if own.keys() == {"200"}:
        return [*lines, f"Answer: {_content(own['200'])}.", ""]
    return [*lines, *_answers(own), ""]


def _answers(answers: dict[str, Any]) -> list[str]:
    rows = [(f"`{code}`", _content(answer), _cell(answer)) for code, answer in answers.items()]
    return table(("answer", "body", "meaning"), rows)


def _content(body: dict[str, Any]) -> str:
    said = [
        type_of(of["schema"]) if of.get("schema") else f"`{kind}`"
        for kind, of in body.get("content", {}).items()
    ]
    return ", ".join(said) or "none"


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document of a service, without starting one."""
    tokens = Tokens(lambda: {b"a token": ALL})  # with one, the document says which scope a path needs
    app: Any = create_app(None, Limits(), tokens, access_log=False)  # type: ignore[arg-type]
    return app.app.openapi()


# Examples and pictures


def examples_page() -> str:
    """Return the files of `examples`, to look at or download."""
    lines = ["# Files of the examples", "", "What the pages name, folder by folder.", ""]
    here = ROOT / "examples"
    for folder in [here, *sorted(path for path in here.rglob("*") if path.is_dir())]:
        files = [
            path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")
        ]
        if files and folder.name not in ("notebooks", "__pycache__"):
            lines += [f"## {folder.relative_to(ROOT).as_posix()}", ""]
            lines += [
                f"- [`{path.name}`](../{path.relative_to(ROOT).as_posix()}){_about(path)}" for path in files
            ]
            lines += [""]
    return "\n".join(lines)


def _about(path: Path) -> str:
    """Return the first sentence of a file of YAML, Python or shell, which is a comment or a docstring."""
    text = re.sub(r"\A#!.*\n", "", path.read_text(encoding="utf-8"))
    said = re.match(r'"""(.+?)(?:"""|\n\n)|((?:#.*\n)+)', text, re.DOTALL)
    if said is None:
        return ""
    plain = said[1] or re.sub(r"^# ?", "", said[2], flags=re.MULTILINE).split("\n\n")[0]
    return ": " + re.split(r"(?<=[.?:])\s", " ".join(plain.split()) + " ")[0].rstrip(":")


def gallery_page() -> str:
    """Return the pictures of all pages, each with what it shows and where it is explained."""
    lines = [
        *(
            "# Gallery",
            "",
            "The pictures of the pages. `python examples/pictures.py pictures --images docs/images`",
        ),
        *("makes those of a screen, of a simulated log whose users and items have names.", ""),
    ]
    shown: set[str] = set()
    for page in [ROOT / "docs" / "index.md", *sorted(ROOT.glob("docs/**/*.md"))]:
        text = page.read_text(encoding="utf-8")
        title, place = text.partition("\n")[0].removeprefix("# "), page.relative_to(ROOT).as_posix()
        for alt, path in re.findall(r"!\[([^\]]*)\]\(([^)]*images/[^)]+)\)", text):
            name = Path(path).name
            if name not in shown:
                shown.add(name)
                lines += [f"![{alt}](../docs/images/{name})", ""]
                lines += [f"{alt.rstrip('.')}. From [{title}](../{place}).", ""]
    return "\n".join(lines)
