"""Small comparisons: are models of today's code as good as they are expected to be?

    python -m benchmarks.short                # run the commands of benchmarks/expected.json, and compare
    python -m benchmarks.short tmall          # one of its parts
    python -m benchmarks.short tmall --keep   # store what they print as what is expected

`make figures-short` calls the first. Each value that a part printed is kept with a tolerance. What differs is
one line: what, what was expected, how far it may lie from that, over how many runs, and what was found.
`benchmarks.figures` runs its commands, and reads what they print, in the same way.
"""

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from string import Template
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import ROOT
from mgoe._util.files import write_text
from mgoe.errors import MgoeError

EXPECTED = "benchmarks/expected.json"

Tolerance = Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+%$")]
"""How far a value may lie from what was kept: in its unit, or as `20%` of what was kept."""
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""An object of a file has no unknown keys."""


class FigureError(MgoeError):
    """A figure, its file or the command that measures it is missing, damaged or of another value."""


class Line(BaseModel):
    """What a benchmark printed of one figure."""

    model_config = STRICT

    name: str
    value: float | None
    unit: str
    against: float | None = None
    ratio: float | None = None


class Part(BaseModel):
    """Commands of a few minutes, and what they printed when their values were kept.

    In a command `$runs` is the number of runs, `$seeds` are their seeds, such as `0,1,2`, and another `$NAME`
    is a variable of the environment.
    """

    model_config = STRICT

    commands: list[str] = Field(min_length=1)
    runs: int = Field(1, ge=1)
    """Whose mean or median a value is, as the command takes it."""
    tolerance: dict[str, Tolerance] = {}
    """By name of a line, in which `*` stands for anything, or by unit; the first that fits counts. A value
    that none fits must be equal."""
    date: datetime.date | None = None
    """When the values were kept."""
    values: list[Line] = []

    def run(self, kept: Path, root: Path) -> list[Line]:
        """Run the commands in a checkout, and return the figures that they print."""
        words = os.environ | {"runs": str(self.runs), "seeds": ",".join(map(str, range(self.runs)))}
        commands = [Template(command).safe_substitute(words) for command in self.commands]
        return lines_of(run(commands, kept, root))

    def missing(self) -> set[str]:
        """Return the variables of the environment that the commands need and that are not set."""
        named = {name for command in self.commands for name in Template(command).get_identifiers()}
        return named - os.environ.keys() - {"runs", "seeds"}

    def differences(self, lines: Iterable[Line]) -> list[str]:
        """Return what differs from the values that were kept, a text each."""
        kept, now = _flat(self.values), _flat(lines)
        runs = f"{self.runs} run{'s' * (self.runs > 1)}"
        texts = []
        for name in kept | now:
            (value, unit), (other, _) = kept.get(name, (None, "")), now.get(name, (None, ""))
            tolerance = self._tolerance(name, unit)
            if value is None:
                texts.append(f"{name}: expected nothing, found {other:g}")
            elif other is None or abs(other - value) > _allowed(tolerance, value):
                found = "nothing" if other is None else f"{other:g}"
                texts.append(f"{name}: expected {value:g} within {tolerance} over {runs}, found {found}")
        return texts

    def _tolerance(self, name: str, unit: str) -> Tolerance:
        fitting = (of for key, of in self.tolerance.items() if key == unit or fnmatchcase(name, key))
        return next(fitting, 0)


_PARTS = TypeAdapter(dict[str, Part])


def _flat(lines: Iterable[Line]) -> dict[str, tuple[float, str]]:
    """Values and what they were compared with, by name, with their units; a ratio follows from the two."""
    return {
        name: (value, one.unit)
        for one in lines
        for name, value in ((one.name, one.value), (f"{one.name}.against", one.against))
        if value is not None
    }


def _allowed(tolerance: Tolerance, value: float) -> float:
    return abs(value) * float(tolerance[:-1]) / 100 if isinstance(tolerance, str) else tolerance


def lines_of(printed: Iterable[str]) -> list[Line]:
    """Return the figures of what was printed, the latest of each name. Lines that are no JSON are left out.

    Raises:
        FigureError: A line is damaged.
    """
    lines: dict[str, Line] = {}
    for number, text in enumerate(printed, 1):
        if text.startswith("{"):
            try:
                line = Line.model_validate_json(text)
            except ValidationError as error:
                raise FigureError(
                    f"line {number} of what was printed",
                    f"{error.errors()[0]['msg']}; remove it, or run again",
                ) from None
            lines[line.name] = line
    return list(lines.values())


def run(commands: Sequence[str], kept: Path, root: Path) -> list[str]:
    """Run commands in a checkout, show what they print, and return it.

    Args:
        commands: As a shell takes them, without its variables.
        kept: A file that holds what was printed so far, if a run is interrupted or its layout is wrong.
        root: Folder of the checkout.

    Raises:
        FigureError: One of them failed.
    """
    printed = []
    source = os.pathsep.join(filter(None, (str(root / "src"), os.environ.get("PYTHONPATH"))))
    for command in commands:
        first, *words = shlex.split(command)
        start = {"python": [sys.executable], "mgoe": [sys.executable, "-m", "mgoe"]}.get(first, [first])
        with subprocess.Popen(
            [*start, *words],
            cwd=root,
            env=os.environ | {"PYTHONPATH": source},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            for text in process.stdout or ():
                print(text, end="", flush=True)
                printed.append(text)
                write_text(kept, "".join(printed))
        if process.returncode:
            raise FigureError(
                command, f"it ended with code {process.returncode}; see its message above, then run again"
            )
    return printed


def as_text(held: object, depth: int = 1) -> str:
    """Return what a file holds as JSON, with each object of a list on a line."""
    pad = " " * depth
    if isinstance(held, dict) and held:
        inner = (f"{pad}{json.dumps(key)}: {as_text(value, depth + 1)}" for key, value in held.items())
        return "{\n" + ",\n".join(inner) + f"\n{pad[1:]}}}"
    if isinstance(held, list) and held:
        return (
            "[\n"
            + ",\n".join(f"{pad}{json.dumps(one, ensure_ascii=False)}" for one in held)
            + f"\n{pad[1:]}]"
        )
    return json.dumps(held, ensure_ascii=False)


def read(file: Path) -> dict[str, Part]:
    """Return the parts of a file of expected values.

    Raises:
        FigureError: It is damaged.
    """
    try:
        return _PARTS.validate_json(file.read_bytes())
    except ValidationError as error:
        raise damaged(file, error) from None


def damaged(file: Path, error: ValidationError) -> FigureError:
    """Return what to raise for a file with a wrong object."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "the file"
    return FigureError(file, f"{place}: {first['msg']}; correct it, or restore the file from the repository")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run parts; compare what they print, or store it.

    Raises:
        FigureError: Values differ, or a part is not there or failed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="parts of the file; all by default")
    parser.add_argument("--keep", action="store_true", help="store what is printed instead of comparing it")
    options = parser.parse_args(arguments)
    parts, differences = read(ROOT / EXPECTED), []
    for name in options.names or parts:
        if name not in parts:
            raise FigureError(name, f"a part must be one of {', '.join(parts)}; correct the name")
        part = parts[name]
        if missing := part.missing():
            print(f"{name}: not run, because {', '.join(sorted(missing))} is not set")
            continue
        if not (part.values or options.keep):
            print(f"{name}: not run, because it has no values yet; store them with --keep")
            continue
        found = part.run(ROOT / "build" / "figures" / f"{name}.jsonl", ROOT)
        if options.keep:
            update = {"date": datetime.date.today(), "values": found}
            parts[name] = part.model_copy(update=update)
            write_text(ROOT / EXPECTED, as_text(_PARTS.dump_python(parts, mode="json")) + "\n")
        else:
            differences += part.differences(found)
    if differences:
        print(*differences, sep="\n")
        raise FigureError(
            EXPECTED,
            f"what is printed must be as expected, found {len(differences)} values that are not; find the "
            "change that moved them, or store them with --keep and say why in the commit",
        )


if __name__ == "__main__":
    try:
        main()
    except MgoeError as error:
        sys.exit(f"short: {error}")
