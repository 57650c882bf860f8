"""Measured tables and numbers of the pages, written from files of what benchmarks printed.

    python -m benchmarks.figures                     # write all pages from their files again
    python -m benchmarks.figures NAME                # measure: run the commands of docs/figures/NAME.json
    python -m benchmarks.figures NAME --from FILE    # take the lines that a long run printed into FILE
    python -m benchmarks.figures --area serve        # list the figures of an area
    python -m benchmarks.figures --check             # fail if a page differs from its files

`make figures`, `make figures NAME=line FROM=FILE`, `make figures AREA=serve` and `make release` call these.
A figure is a dated measurement: its file has the date, the commit whose code measured, and the machine. It
says nothing about later code. A page holds a table between two comments, and a number before one:

    <!-- figures NAME -->
    (the table, and a line that says when and on what it was measured)
    <!-- end -->
    ... took 61 s<!-- figure NAME VALUE --> ...

NAME is that of the file. VALUE is the name of a line that a benchmark printed, or that name with
`.against` or `.ratio` behind it. The number keeps its decimals; `k`, `M`, `%` and `min` behind it scale the
value.

In a file, `columns` are heads with the pattern of their cells, and `rows` say what `$words` of a pattern
stand for. `{VALUE:.1f}` in a pattern is a value in a format of Python.
"""

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Literal, get_args

import psutil
from pydantic import BaseModel, Field, ValidationError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import GIB, ROOT, THREADS
from benchmarks.short import STRICT, FigureError, Line, as_text, damaged, lines_of, run
from mgoe._util.files import write_text
from mgoe.errors import MgoeError

FOLDER = "docs/figures"
CODE = ("src", "benchmarks", "examples")
"""Folders of what measures, which must be committed."""
Area = Literal["graph", "train", "serve", "line", "quality", "lists", "spark"]
SCALES = {"k": 1e3, "M": 1e6, "%": 0.01, "min": 60.0}
"""Words behind a number of a text, and what the value is divided by."""
_TOOL = re.compile(r"extra == .(dev|docs)\b")
"""Requirements that measure nothing."""
_MARK = re.compile(r"<!-- *(?:figures?|end)\b.*?-->", re.DOTALL)
_TABLE = re.compile(r"(<!-- figures ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_NUMBER = re.compile(r"((?<![\w.])-?(?:\d[\d,]*)?\.?\d+)([^\d|<>\n]{0,24})(<!-- figure ([\w-]+) (\S+) -->)")
_CELL = re.compile(r"\{([^{}:]+):([^{}]*)\}")


class Figures(BaseModel):
    """What a file holds: how a table looks, how it is measured, and what was measured, when and by what."""

    model_config = STRICT

    area: Area
    """What a change must have moved for the figures to be measured again."""
    commands: list[str] = Field(min_length=1)
    columns: dict[str, str] = {}
    commit: str | None = Field(None, pattern=r"^[0-9a-f]{8,40}$")
    """Whose code measured; none before the first measurement, as `date`."""
    date: datetime.date | None = None
    machine: str | None = None
    versions: dict[str, str] = {}
    rows: list[dict[str, str]] = []
    values: list[Line] = []

    def value(self, name: str) -> float | None:
        """Return a value, what it was compared with (`.against`), or their ratio (`.ratio`)."""
        lines = {line.name: line for line in self.values}
        start, _, field = name.rpartition(".")
        if name in lines:
            return lines[name].value
        return getattr(lines[start], field) if start in lines and field in ("against", "ratio") else None

    def table(self, file: Path) -> str:
        """Return the table as Markdown, without the line below it.

        Raises:
            FigureError: A cell names a value that is not there.
        """
        cells = [[_cell(self, file, cell, row) for cell in self.columns.values()] for row in self.rows]
        rule = "|---" + "|---:" * (len(self.columns) - 1) + "|"
        return "\n".join([_row(self.columns), rule, *map(_row, cells)])

    def origin(self) -> str:
        """Return when, by which commit and on what machine was measured, as a sentence."""
        machine = self.machine or "a machine that was not recorded"
        return f"Measured on {self.date:%-d %B %Y} at commit {self.commit}, on {machine}."


def read(file: Path) -> Figures:
    """Read the file of figures that were measured.

    Raises:
        FigureError: It is missing or damaged, or does not say when and by which commit they were measured.
    """
    figures = _layout(file)
    if missing := [name for name in ("date", "commit") if getattr(figures, name) is None]:
        raise FigureError(
            file,
            f"it must say when and by which commit was measured, found no {' and no '.join(missing)}; "
            f"measure: make figures NAME={file.stem}",
        )
    return figures


def _layout(file: Path) -> Figures:
    """What a file holds, measured or not."""
    try:
        return Figures.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FigureError(
            file, "there must be a file for each marker of a page; write it, or remove the marker"
        ) from None
    except ValidationError as error:
        raise damaged(file, error) from None


def write(file: Path, figures: Figures) -> None:
    """Write the file of a table."""
    write_text(file, as_text(figures.model_dump(mode="json")) + "\n")


class Pages:
    """The pages of a checkout and the files of their figures.

    Args:
        root: Folder of the checkout.

    Example:
        >>> for page, text in Pages(ROOT).rendered().items():
        ...     page.write_text(text)
    """

    def __init__(self, root: Path):
        self.root = root
        self.folder = root / FOLDER
        self.pages = [*sorted((root / "docs").glob("**/*.md")), *root.glob("README.md")]
        self.files = {file.stem: file for file in sorted(self.folder.glob("*.json"))}

    def rendered(self) -> dict[Path, str]:
        """Return every page as its files make it.

        Raises:
            FigureError: A marker has no file or is damaged, a file has no marker, a page lacks a command,
                or a value is not there.
        """
        tables: dict[str, Path] = {}
        numbers: dict[str, Path] = {}
        texts = {page: self._page(page, tables, numbers) for page in self.pages}
        used = numbers | tables  # a command stands beside the table, if there is one
        for name in sorted(self.files.keys() - used.keys()):
            raise FigureError(
                self.files[name],
                f"a page must show the figures of each file, found no `<!-- figures {name} -->`; "
                "put the marker into a page, or remove the file",
            )
        for name, page in used.items():
            for command in read(self.files[name]).commands:
                if command not in _one_line(texts[page]):
                    raise FigureError(
                        page,
                        f"figures must stand beside their command; show `{command}` near those of {name!r}",
                    )
        return texts

    def changed(self) -> dict[Path, str]:
        """Return the pages that differ from what their files make of them, as they should be."""
        return {page: text for page, text in self.rendered().items() if text != _text(page)}

    def write(self) -> list[Path]:
        """Write the pages that change, and return them."""
        changed = self.changed()
        for page, text in changed.items():
            write_text(page, text)
        return list(changed)

    def _page(self, page: Path, tables: dict[str, Path], numbers: dict[str, Path]) -> str:
        text = _text(page)
        for mark in _MARK.finditer(text):
            _check_mark(mark, text, page)

        def table(found: re.Match[str]) -> str:
            opening, name, _, closing = found.groups()
            if name in tables:
                raise FigureError(
                    _place(page, text, found.start()),
                    f"the figures {name!r} are on a page already; remove one table",
                )
            file = self._file(name, page, text, found.start())
            tables[name] = page
            figures = read(file)
            return f"{opening}\n{figures.table(file)}\n\n*{figures.origin()}*\n\n{closing}"

        def number(found: re.Match[str]) -> str:
            printed, unit, mark, name, value = found.groups()
            place = _place(page, text, text.index(found[0]))
            file = self._file(name, page, text, text.index(found[0]))
            numbers.setdefault(name, page)
            exact = _known(read(file), value, place, file)
            return f"{_as_printed(exact, printed, unit)}{unit}{mark}"

        return _NUMBER.sub(number, _TABLE.sub(table, text))

    def _file(self, name: str, page: Path, text: str, at: int) -> Path:
        if name not in self.files:
            raise FigureError(
                _place(page, text, at),
                f"a marker must have its file, found no {FOLDER}/{name}.json; write it, or remove the marker",
            )
        return self.files[name]


def measure(file: Path, printed: Iterable[str], commit: str, date: datetime.date) -> Figures:
    """Return figures with the values that their commands printed.

    Args:
        file: Of the figures.
        printed: Lines of the commands.
        commit: Whose code ran.
        date: When it did.

    Raises:
        FigureError: A line is damaged, or the table has a value that was not printed.
    """
    figures = _layout(file)
    found = figures.model_copy(
        update={
            "commit": commit,
            "date": date,
            "machine": _machine(),
            "versions": _versions(figures.versions),
            "values": lines_of(printed),
        }
    )
    found.table(file)  # all its values are there
    return found


def commit_of(root: Path, name: str | None = None) -> str:
    """Return the commit of that name, or the one that a checkout is at.

    Raises:
        FigureError: There is none, or the checkout has code that was not committed.
    """
    if name is None and (changed := _git(root, "status", "--porcelain", "--", *CODE)):
        raise FigureError(
            root,
            f"the code that measures must be committed, found changes:\n{changed}\ncommit them, then measure",
        )
    return _git(root, "rev-parse", "--verify", "--short=8", f"{name or 'HEAD'}^{{commit}}")


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise FigureError(f"git {' '.join(words)}", f"{done.stderr.strip()}; name a commit of this checkout")
    return done.stdout.rstrip()


def _versions(before: Iterable[str]) -> dict[str, str]:
    """Versions of Python, of what the library requires, and of packages that were named before."""
    named = [text for text in metadata.requires("mgoe") or () if not _TOOL.search(text)]
    names = {re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in named} | {*before} - {"python"}
    installed = {one.name: one.version for one in metadata.distributions()}
    found = {name: installed[name] for name in sorted(names, key=str.lower) if name in installed}
    return {"python": platform.python_version()} | found


def _known(figures: Figures, name: str, place: object, file: Path) -> float:
    found = figures.value(name)
    if found is None:
        raise FigureError(
            place,
            f"{name!r} must be a value of {file.name}, and is not there; correct the name, or measure again",
        )
    return found


def _cell(figures: Figures, file: Path, cell: str, row: Mapping[str, str]) -> str:
    """A cell, with the words of its row and the values that it names."""
    try:
        text = Template(cell).substitute(row)
    except (KeyError, ValueError) as error:
        raise FigureError(file, f"the cell {cell!r} needs {error} in each of `rows`; add it there") from None

    def number(found: re.Match[str]) -> str:
        name, form = found.groups()
        value = _known(figures, name, f"{file}, cell {text!r}", file)
        try:
            return format(value, form)
        except ValueError:
            raise FigureError(
                file, f"the cell {cell!r} has no format of Python; write {{{name}:.1f}}"
            ) from None

    return _CELL.sub(number, text)


def _row(cells: Iterable[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _as_printed(value: float, printed: str, unit: str) -> str:
    """A value in the form of the number that stands there."""
    decimals = len(printed.partition(".")[2])
    word = re.match(r"\s*([a-zA-Z]+|%)?", unit)
    scale = SCALES.get(word[1], 1.0) if word else 1.0
    text = f"{value / scale:,.{decimals}f}"
    return text.removeprefix("0") if printed.startswith(".") else text


def _check_mark(mark: re.Match[str], text: str, page: Path) -> None:
    """Check that a comment opens or closes a table or follows a number."""
    tables = [found.span() for found in _TABLE.finditer(text)]
    numbers = [found.span(3) for found in _NUMBER.finditer(text)]
    borders = [start for start, _ in tables], [end for _, end in tables]
    inside = any(start < mark.start() and mark.end() < end for start, end in tables)
    if inside or not (mark.start() in borders[0] or mark.end() in borders[1] or mark.span() in numbers):
        raise FigureError(
            _place(page, text, mark.start()),
            "markers must be `<!-- figures NAME -->` and `<!-- end -->` around a table, or "
            f"`<!-- figure NAME VALUE -->` behind a number, found `{mark[0]}`; correct it",
        )


def _place(page: Path, text: str, at: int) -> str:
    return f"{page.name}:{text.count(chr(10), 0, at) + 1}"


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _one_line(text: str) -> str:
    """A page whose commands are on one line each."""
    return re.sub(r"\s*\\\n\s*", " ", text)


def _machine() -> str:
    cpu = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else None
    cores = min(THREADS, os.cpu_count() or 1)
    memory = psutil.virtual_memory().total / GIB
    return (
        f"{cores} cores of {model[1] if model else platform.machine()}, {memory:.0f} GiB, {platform.system()}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """List, check, or measure and write.

    Raises:
        FigureError: A name is unknown, a page or a file is damaged, or a page differs from its files.
    """
    options = _parser().parse_args(arguments)
    pages = Pages(ROOT)
    if options.area:
        for name, file in pages.files.items():
            if (figures := read(file)).area == options.area:
                print(f"{name}: {figures.origin()}")
        return
    if options.check:
        for page in pages.changed():
            raise FigureError(page, "it must show what its files hold; run `make figures`, then commit it")
    elif options.name:
        if options.name not in pages.files:
            raise FigureError(
                "NAME", f"must be one of {', '.join(pages.files)}, found {options.name!r}; name one of them"
            )
        file = pages.folder / f"{options.name}.json"
        write(file, _measured(file, options.lines, options.commit))
    for page in pages.write():
        print(f"written: {page.relative_to(ROOT)}")


def _measured(file: Path, lines: Path | None, commit: str | None) -> Figures:
    if lines and not lines.is_file():
        raise FigureError(lines, "it must be a file with the lines of a run; name another one")
    commit = commit_of(ROOT, commit)
    if lines:
        when = datetime.date.fromtimestamp(lines.stat().st_mtime)
        return measure(file, _text(lines).splitlines(), commit, when)
    kept = ROOT / "build" / "figures" / f"{file.stem}.jsonl"
    today = datetime.date.today()
    return measure(file, run(_layout(file).commands, kept, ROOT), commit, today)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "name", nargs="?", help="of the figures to measure; without it pages are written only"
    )
    parser.add_argument("--from", dest="lines", type=Path, help="what the commands printed; they are not run")
    parser.add_argument("--commit", help="with --from: the commit that ran; that of the checkout by default")
    parser.add_argument("--area", choices=get_args(Area), help="list the figures of an area")
    parser.add_argument("--check", action="store_true", help="fail if a page differs from its files")
    return parser


if __name__ == "__main__":
    try:
        main()
    except MgoeError as error:
        sys.exit(f"figures: {error}")
