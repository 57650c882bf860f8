"""Code of pages and notebooks, run in this process, and what it prints, compared up to numbers.

Numbers differ between machines and between the log of a page and a smaller one, so they are no part of the
comparison; every word and sign is.
"""

import ast
import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any


def run_cell(source: str, names: dict[str, Any]) -> Iterator[str]:
    """Run code as a notebook does; yield what it printed and the value of a last expression, if there is one.

    Args:
        source: Statements.
        names: Its variables, which it changes.
    """
    tree, value = ast.parse(source), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "<cell>", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    yield from filter(None, [printed.getvalue(), "" if value is None else repr(value)])


def without_numbers(text: str) -> str:
    """Replace every number by `#`, and any white space by one space."""
    return " ".join(re.sub(r"[-+]?\d[\d,.]*(e[-+]?\d+)?", "#", text).split())


def check_shown(page: str, printed: str) -> None:
    """Check that a page shows what was printed, up to numbers; `...` stands for what it leaves out."""
    found, place = without_numbers(printed), 0
    for part in without_numbers(page).split("..."):
        place = found.find(part.strip(), place)
        assert place >= 0, f"not printed: {part.strip()!r}\nin: {found}"
