"""What docs/cli.md says of the JSON of each command, and whether an answer is that."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
TYPES = {
    "text": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "anything": object,
}


@dataclass
class Kind:
    """What the page says of a value: a text such as `list of text or null`, and what is inside."""

    text: str = "object"
    keys: dict[str, "Kind"] = field(default_factory=dict)
    """Of an object."""
    list_of: "Kind | None" = None
    by_name: "Kind | None" = None

    def at(self, path: str) -> "Kind":
        """Return the kind at a path, such as `leads[].model` or `tasks.*.rate`."""
        found = self
        for step in re.findall(r"\[\]|[^.\[\]]+", path):
            if step == "[]":
                inner = found.list_of = found.list_of or Kind()
            elif step == "*":
                inner = found.by_name = found.by_name or Kind()
            else:
                inner = found.keys.setdefault(step, Kind())
            found = inner
        return found

    def check(self, value: Any, path: str) -> None:
        """Check a value and all inside it."""
        if self.list_of is not None and value is not None:
            assert isinstance(value, list), path
            for one in value:
                self.list_of.check(one, f"{path}[]")
        elif self.by_name is not None:
            assert isinstance(value, dict), path
            for one in value.values():
                self.by_name.check(one, f"{path}.*")
        elif self.keys and value is not None:
            assert isinstance(value, dict), path
            absent = {name for name, kind in self.keys.items() if "or null" in kind.text} - value.keys()
            assert list(value) == [name for name in self.keys if name not in absent], path
            for name, one in value.items():
                self.keys[name].check(one, f"{path}.{name}")
        else:
            assert fits(value, self.text), f"{path} must be {self.text}, found {value!r}"


def fits(value: Any, text: str) -> bool:
    """Tell whether a value is what a text of the page says."""
    if text.endswith(" or null"):
        inner = text.removesuffix(" or null")
        if inner.startswith("list of ") and isinstance(value, list):  # of a list, its entries may be null
            return all(one is None or fits(one, inner.removeprefix("list of ")) for one in value)
        return value is None or fits(value, inner)
    if text.endswith(" by name"):
        inner = text.removesuffix(" by name")
        return isinstance(value, dict) and all(fits(one, inner) for one in value.values())
    if text.startswith("list of "):
        inner = text.removeprefix("list of ")
        return isinstance(value, list) and all(fits(one, inner) for one in value)
    kinds = text.replace("true or false", "boolean").split(" or ")
    if isinstance(value, bool):  # which Python takes for an integer
        return "boolean" in kinds or "anything" in kinds
    return any(
        value == kind.strip("`") if kind.startswith("`") else isinstance(value, TYPES[kind]) for kind in kinds
    )


@cache
def sections() -> dict[str, str]:
    """Return what the page says of the answer of each command."""
    text = PAGE.read_text(encoding="utf-8").split("\n## JSON of each command\n", 1)[1].split("\n## ")[0]
    return dict(section.split("\n", 1) for section in text.split("\n### ")[1:])


@cache
def forms_of(command: str) -> list[Kind]:
    """Return the forms of the answer of a command."""
    body, found, before = sections()[command], [], ""
    if same := re.search(r"The same keys as \[(.+)\]", body):
        return forms_of(same[1])
    for block in body.strip().split("\n\n"):
        if block.startswith("|"):
            kind = _kind_of(block.splitlines()[2:])
            found.append(Kind(list_of=kind) if before.startswith("A list") else kind)
        before = block
    return found


def _kind_of(lines: Iterable[str]) -> Kind:
    """Return what a table says of an object."""
    found = Kind()
    for line in lines:
        paths, text, about = (cell.strip() for cell in line.strip("|").split("|"))
        for path in re.findall(r"`(.+?)`", paths):
            one = found.at(path)
            one.text = text
            if same := re.match(r"See \[([a-z ]+)\]\(#", about):
                forms = forms_of(same[1])
                objects = [form.list_of or form for form in forms]
                [other] = [form.keys[path] for form in objects if path in form.keys] or forms
                one.keys, one.list_of, one.by_name = other.keys, other.list_of, other.by_name
                one.text = other.text if text == "as there" else text
            elif same := re.match(r"As `(\w+)`", about):
                one.list_of = found.keys[same[1]].list_of
    return found


def check(command: str, printed: str) -> None:
    """Check the answer of a command.

    Raises:
        AssertionError: It is none that the page describes.
    """
    value, forms = json.loads(printed), forms_of(command)
    alike = [form for form in forms if (form.list_of is not None) == isinstance(value, list)]
    if len(alike) > 1:
        alike = [form for form in alike if set(value) == set(form.keys)]
    assert len(alike) == 1, command
    alike[0].check(value, command)
