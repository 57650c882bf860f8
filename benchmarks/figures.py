"""Measured tables and numbers of the pages, written from files of what benchmarks printed.

    python -m benchmarks.figures                     # write all pages from their files again
    python -m benchmarks.figures NAME                # measure: run the commands of docs/figures/NAME.json
    python -m benchmarks.figures NAME --from FILE    # take the lines that a long run printed into FILE
    python -m benchmarks.figures NAME --stamp        # run the short form: does other code give the same?
    python -m benchmarks.figures --release           # fail if a table is of other code

`make figures`, `make figures NAME=line FROM=FILE`, `make figures-stamp NAME=line` and `make release` call
these. A page holds a table between two comments, and a number before one:

    <!-- figures NAME -->
    (the table)
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
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from string import Template

import psutil
from pydantic import BaseModel, Field, ValidationError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import GIB, ROOT, THREADS
from benchmarks.short import STRICT, Line, Short, as_text, damaged, lines_of, run
from benchmarks.sources import FigureError, Sources
from mgoe._util.files import write_text
from mgoe.errors import MgoeError

FOLDER = "docs/figures"
DATED = "laboratory"
"""Name of the page, or of the folder of pages, whose figures carry dates instead of being measured again."""
SCALES = {"k": 1e3, "M": 1e6, "%": 0.01, "min": 60.0}
"""Words behind a number of a text, and what the value is divided by."""
_MARK = re.compile(r"<!-- *(?:figures?|end)\b.*?-->", re.DOTALL)
_TABLE = re.compile(r"(<!-- figures ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_NUMBER = re.compile(r"((?<![\w.])-?(?:\d[\d,]*)?\.?\d+)([^\d|<>\n]{0,24})(<!-- figure ([\w-]+) (\S+) -->)")
_CELL = re.compile(r"\{([^{}:]+):([^{}]*)\}")


class Figures(BaseModel):
    """What a file holds: how a table looks, how it is measured, and what was measured by which code."""

    model_config = STRICT

    commands: list[str] = Field(min_length=1)
    columns: dict[str, str] = {}
    code: str | None = None
    """Hash of the code that measured; none if it is unknown, as of figures older than their file."""
    date: datetime.date | None = None
    machine: str | None = None
    versions: dict[str, str] = {}
    rows: list[dict[str, str]] = []
    values: list[Line] = []
    short: Short | None = None
    """Shows whether other code gives the same: what it printed under the code that measured, and the hash of
    the code that was checked since."""

    def value(self, name: str) -> float | None:
        """Return a value, what it was compared with (`.against`), or their ratio (`.ratio`)."""
        lines = {line.name: line for line in self.values}
        start, _, field = name.rpartition(".")
        if name in lines:
            return lines[name].value
        return getattr(lines[start], field) if start in lines and field in ("against", "ratio") else None

    def table(self, file: Path) -> str:
        """Return the table as Markdown.

        Raises:
            FigureError: A cell names a value that is not there.
        """
        cells = [[_cell(self, file, cell, row) for cell in self.columns.values()] for row in self.rows]
        rule = "|---" + "|---:" * (len(self.columns) - 1) + "|"
        return "\n".join([_row(self.columns), rule, *map(_row, cells)])


def read(file: Path) -> Figures:
    """Read the file of a table.

    Raises:
        FigureError: It is missing or damaged.
    """
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
    held = figures.model_dump(mode="json", exclude={"short"} if figures.short is None else None)
    write_text(file, as_text(held) + "\n")


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

    def of_other_code(self, sources: Sources) -> list[str]:
        """Return the names of figures of other code than a checkout has, without pages that carry dates."""
        shown = "".join(_text(page) for page in self.pages if DATED not in _names(page, self.root))
        return [
            name
            for name, file in self.files.items()
            if re.search(rf"<!-- figures? {name} ", shown) and is_of_other_code(read(file), sources)
        ]

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
            return f"{opening}\n{read(file).table(file)}\n\n{closing}"

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


def is_of_other_code(figures: Figures, sources: Sources) -> bool:
    """Return whether figures were neither measured nor checked by the code of a checkout."""
    known = {figures.code, figures.short.code if figures.short else None}
    return sources.code(figures.commands) not in known


def measure(file: Path, printed: Iterable[str], sources: Sources, code: str) -> Figures:
    """Return figures with the values that their commands printed.

    Args:
        file: Of the figures.
        printed: Lines of the commands.
        sources: The code that ran.
        code: Its hash when it started.

    Raises:
        FigureError: A line is damaged, or the table has a value that was not printed.
    """
    figures = read(file)
    packages = metadata.packages_distributions()
    known = {name for package in sources.packages(figures.commands) for name in packages.get(package, [])}
    found = figures.model_copy(
        update={
            "code": code,
            "date": datetime.date.today(),
            "machine": _machine(),
            "versions": {"python": platform.python_version()}
            | {name: metadata.version(name) for name in sorted(known - {"mgoe"})},
            "values": lines_of(printed),
            "short": _without_values(figures.short),
        }
    )
    found.table(file)  # all its values are there
    return found


def stamp(file: Path, sources: Sources) -> Figures:
    """Run the short form of figures in a checkout, and return the figures with what it shows.

    Under the code that measured, what the short form prints is kept. Under other code it must print the same
    within its tolerances; then the hash of that code stands beside the hash of the code that measured.

    Raises:
        FigureError: A value differs, or the short form is not there or runs other code.
    """
    figures, again = read(file), f"measure again: make figures NAME={file.stem}"
    short, code = figures.short, sources.code(figures.commands)
    if short is None or sources.code(short.commands) != code:
        raise FigureError(
            file, f"a stamp needs `short`, with `commands` that run the same code; write them, or {again}"
        )
    if code != figures.code and not short.values:
        raise FigureError(
            file,
            f"a stamp needs what the short form printed under the code that measured, {figures.code}; run it "
            f"in a checkout of that code with --checkout, or {again}",
        )
    found = short.run(_kept(f"{file.stem}-short"), sources.root)
    if code != figures.code and (differences := short.differences(found)):
        raise FigureError(file, f"{'; '.join(differences)}; {again}")
    values = found if code == figures.code else short.values
    update = {"code": code, "date": datetime.date.today(), "values": values}
    return figures.model_copy(update={"short": short.model_copy(update=update)})


def _without_values(short: Short | None) -> Short | None:
    return short and short.model_copy(update={"code": None, "date": None, "values": []})


def _kept(name: str) -> Path:
    return ROOT / "build" / "figures" / f"{name}.jsonl"


def check_release(pages: Pages, sources: Sources) -> None:
    """Check that pages show what their files hold, and that the code of a checkout measured or checked it.

    Raises:
        FigureError: One of the two is not so.
    """
    for page in pages.changed():
        raise FigureError(page, "it must show what its files hold; run `make figures`, then commit it")
    if others := pages.of_other_code(sources):
        raise FigureError(
            FOLDER,
            f"a release must show figures of its own code, those of other code are {', '.join(others)}; "
            "measure each again, make figures NAME=..., or by its short form, make figures-stamp NAME=...",
        )


def _names(page: Path, root: Path) -> tuple[str, ...]:
    """The folders of a page in a checkout and its own name."""
    return page.relative_to(root).with_suffix("").parts


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
    """Parse, measure, write."""
    options = _parser().parse_args(arguments)
    pages, sources = Pages(ROOT), Sources(options.checkout)
    if options.release:
        check_release(pages, Sources(ROOT))
    elif options.name:
        if options.name not in pages.files:
            raise FigureError(
                "NAME", f"must be one of {', '.join(pages.files)}, found {options.name!r}; name one of them"
            )
        file = pages.folder / f"{options.name}.json"
        if not options.stamp:
            write(file, _measured(file, sources, options.lines))
        if options.stamp or (read(file).short and not options.lines):
            write(file, stamp(file, sources))
    for page in pages.write():
        print(f"written: {page.relative_to(ROOT)}")
    print(f"of other code: {', '.join(pages.of_other_code(Sources(ROOT))) or 'none'}")


def _measured(file: Path, sources: Sources, lines: Path | None) -> Figures:
    if lines and not lines.is_file():
        raise FigureError(lines, "it must be a file with the lines of a run; name another one")
    commands = read(file).commands
    code = sources.code(commands)
    printed = _text(lines).splitlines() if lines else run(commands, _kept(file.stem), ROOT)
    return measure(file, printed, sources, code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "name", nargs="?", help="of the figures to measure; without it pages are written only"
    )
    parser.add_argument("--from", dest="lines", type=Path, help="what the commands printed; they are not run")
    parser.add_argument(
        "--checkout", type=Path, default=ROOT, help="with --from or --stamp: the checkout that ran or runs"
    )
    parser.add_argument("--stamp", action="store_true", help="run the short form, and compare or keep it")
    parser.add_argument("--release", action="store_true", help="fail if figures were measured by other code")
    return parser


if __name__ == "__main__":
    try:
        main()
    except MgoeError as error:
        sys.exit(f"figures: {error}")
