"""Tables of plain cells, written alike to the terminal and as Markdown, LaTeX and HTML."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import rich.table
from rich.text import Text

from mgoe.evaluation.rows import ALL, Row, best, head, main_columns, show, summarise

_ESCAPES = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


@dataclass(frozen=True)
class Cell:
    """A cell of a table, `strong` if it stands out, and a small note beside it."""

    text: str
    strong: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of plain cells.

    Attributes:
        columns: Their names; the first column names the lines.
        lines: The name and the other cells of each line.
        groups: Titles over several columns, with the number of columns each spans.
        strong: Name of the line that stands out.
    """

    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[Cell]]]
    groups: Sequence[tuple[str, int]] = ()
    strong: str = ""


def metrics_table(rows: Iterable[Row], split: str = "test", slice: str = ALL) -> Table:
    """Return the main metrics of each model, one line per model; the best of each column is strong."""
    summaries = summarise(rows, split, slice)
    leaders = {column: best(summaries, column) for column in main_columns(summaries)}
    lines = [
        (model, [Cell(show(found.get(column)), model in leaders[column]) for column in leaders])
        for model, found in summaries.items()
    ]
    return Table(["model", *map(head, leaders)], lines)


def markdown_table(rows: Iterable[Row]) -> str:
    """Return the main metrics on the test split as Markdown, one line per model, the best of each column in
    bold.
    """
    return as_markdown(metrics_table(rows))


def rich_table(
    rows: Iterable[Row], split: str = "test", slice: str = ALL, name: str | None = None
) -> rich.table.Table:
    """Return the same table for the terminal, for any split and slice."""
    found = metrics_table(rows, split, slice)
    table = rich.table.Table(title=name, box=None, header_style="bold", title_justify="left", pad_edge=False)
    table.add_column("model", no_wrap=True)
    for column in found.columns[1:]:
        table.add_column(column, justify="right")
    for model, cells in found.lines:
        table.add_row(model, *(Text(cell.text, "bold green") if cell.strong else cell.text for cell in cells))
    return table


def as_markdown(table: Table) -> str:
    """Return a table as Markdown, strong cells in bold."""
    lines = [list(table.columns), ["---", *["---:"] * (len(table.columns) - 1)]]
    lines += [
        [name, *(f"**{cell.text}**" if cell.strong else cell.text for cell in cells)]
        for name, cells in table.lines
    ]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def as_latex(table: Table, caption: str, notes: Sequence[str]) -> str:
    """Return a table as LaTeX for `booktabs`, strong cells in bold, with notes below it."""
    lines = [" & ".join(map(_escaped, table.columns))]
    for name, cells in table.lines:
        texts = [
            rf"\textbf{{{_escaped(cell.text)}}}" if cell.strong else _escaped(cell.text) for cell in cells
        ]
        lines.append(" & ".join([_escaped(name), *texts]))
    head, *body = [line + r" \\" for line in lines]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped(caption)}}}",
            r"\footnotesize",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            *("\\toprule", head, "\\midrule", *body, "\\bottomrule"),
            r"\end{tabular}",
            *(rf"\par {_escaped(note)}" for note in notes),
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
