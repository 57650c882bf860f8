"""The objective of a ranking: one number made from the tasks' probabilities, such as `click * buy^2`.

`^` binds tightest and to the right, then the sign, then `*` and `/`, then `+` and `-`, so that `-2^2` is
-4. Reading is precedence climbing rather than Python's parser, because a task may have the name of a Python
keyword and because every error names its character.

Axes: `B` rows.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial, reduce
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mgoe.config import did_you_mean
from mgoe.errors import MgoeError

LONGEST = 500
"""Characters of an objective."""
DEEPEST = 40
"""Parentheses, signs and powers inside one another."""
FUNCTIONS: dict[str, tuple[int, int]] = {"min": (2, 8), "max": (2, 8), "log": (1, 1), "sqrt": (1, 1)}
"""Least and most arguments of each function."""
BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 4}
"""How tightly each operator binds."""
SIGN = 3
"""How tightly a sign binds."""
_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<sign>[-+*/^(),])"
    r"|(?P<other>\S)"
)

Tasks: TypeAlias = Mapping[str, NDArray[np.floating]]
Values: TypeAlias = NDArray[np.float64]
Node: TypeAlias = Callable[[Tasks], Values]
"""Computes a part of an objective from columns of the tasks; a constant has one row."""
Objective: TypeAlias = Callable[[Tasks], Values]
"""Computes one number per row from probabilities (or values) by task, of shape (B,) each. It raises an
`ObjectiveError` where a row divides by zero, or has no finite value."""


class ObjectiveError(MgoeError):
    """An objective cannot be read, or has no value for some row.

    Args:
        message: The rule, what was found, and the fix.
        position: The character at fault, from 0.
    """

    def __init__(self, message: str, position: int):
        self.position = position
        super().__init__("objective", f"{message} (at character {position})")


@lru_cache(maxsize=1024)
def read_objective(text: str, tasks: tuple[str, ...]) -> Objective:
    """Read an objective. Clients use few different ones, so they are cached.

    Args:
        text: At most `LONGEST` characters.
        tasks: Names that it may hold.

    Raises:
        ObjectiveError: It breaks the grammar, is too long or too deep, or names something that is not a task.

    Example:
        >>> objective = read_objective("click * buy^2", ("click", "buy"))
        >>> objective({"click": np.array([0.5]), "buy": np.array([0.2])}).round(3)
        array([0.02])
    """
    if len(text) > LONGEST:
        rule = f"must have at most {LONGEST} characters, found {len(text)}; write it shorter"
        raise ObjectiveError(rule, LONGEST)
    return partial(_rows_of, _Reader(text, tasks).whole())


def _rows_of(root: Node, tasks: Tasks) -> Values:
    """Compute an objective. Shape (B,)."""
    rows = len(next(iter(tasks.values())))
    if not rows:  # a constant part would still be computed once, and may have no value
        return np.empty(0)
    with np.errstate(all="ignore"):
        return np.broadcast_to(root(tasks), (rows,))


class _Token(NamedTuple):
    kind: str
    text: str
    position: int

    def __str__(self) -> str:
        return self.text if self.kind == "end" else repr(self.text)


def _tokens(text: str) -> list[_Token]:
    """Return numbers, names and signs, and `end` after them."""
    tokens = [_Token(found.lastgroup or "", found[0], found.start()) for found in _TOKEN.finditer(text)]
    for kind, other, position in tokens:
        if kind == "other":
            fix = "use numbers, tasks, + - * / ^ and parentheses"
            raise ObjectiveError(f"holds {other!r}, which means nothing here; {fix}", position)
    return [*tokens, _Token("end", "the end", len(text.rstrip()))]


class _Reader:
    """Reads the tokens of one text; `next` is the first that was not read."""

    def __init__(self, text: str, tasks: tuple[str, ...]):
        self._tasks, self._rest, self._depth = tasks, iter(_tokens(text)), 0
        self.next = next(self._rest)

    def whole(self) -> Node:
        root = self._expression(1)
        if self.next.kind != "end":
            rule = f"must end or continue with an operator, found {self.next}"
            raise ObjectiveError(rule, self.next.position)
        return root

    def _expression(self, least: int) -> Node:
        """Read an operand, and what operators that bind at least this tightly join to it."""
        node = self._operand()
        while (binding := BINDING.get(self.next.text, 0)) >= least:
            _, operator, position = self._take()
            right = self._nested(SIGN, position) if operator == "^" else self._expression(binding + 1)
            node = partial(_call, operator, position, (node, right))
        return node

    def _operand(self) -> Node:
        kind, text, position = token = self._take()
        if kind == "number":
            if not np.isfinite(value := np.array([float(text)])).all():
                raise ObjectiveError(f"a number must be below 1.8e308, found {text}", position)
            return lambda _: value
        if text == "-":
            return partial(_call, "neg", position, (self._nested(SIGN, position),))
        if text == "(":
            node = self._nested(1, position)
            self._close()
            return node
        if text in self._tasks:
            return lambda tasks: np.asarray(tasks[text], np.float64)
        if text in FUNCTIONS:
            return partial(_call, text, position, self._arguments(text, position))
        if kind == "name":
            known = f"tasks: {', '.join(self._tasks)}; functions: {', '.join(FUNCTIONS)}"
            meant = did_you_mean(text, [*self._tasks, *FUNCTIONS])
            raise ObjectiveError(f"{text!r} is not a task{meant}; {known}", position)
        raise ObjectiveError(f"needs a number, a task or a parenthesis, found {token}", position)

    def _arguments(self, name: str, position: int) -> tuple[Node, ...]:
        if self.next.text != "(":
            raise ObjectiveError(f"{name} is a function: write {name}(...)", position)
        parts: list[Node] = []
        while self.next.text == ("," if parts else "("):
            self._take()
            parts.append(self._nested(1, position))
        self._close()
        least, most = FUNCTIONS[name]
        if not least <= len(parts) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise ObjectiveError(f"{name} takes {wanted} parts, found {len(parts)}", position)
        return tuple(parts)

    def _nested(self, least: int, position: int) -> Node:
        if self._depth == DEEPEST:
            raise ObjectiveError(f"may nest {DEEPEST} deep at most; write it flatter", position)
        self._depth += 1
        node = self._expression(least)
        self._depth -= 1
        return node

    def _close(self) -> None:
        if (token := self._take()).text != ")":
            raise ObjectiveError(f"needs a closing parenthesis, found {token}", token.position)

    def _take(self) -> _Token:
        taken, self.next = self.next, next(self._rest, self.next)
        return taken


def _call(operator: str, position: int, parts: tuple[Node, ...], tasks: Tasks) -> Values:
    """Compute an operator or a function of its parts. A sign is the operator `neg`.

    Raises:
        ObjectiveError: Some row has no finite value; the message shows the numbers of the first.
    """
    values = [part(tasks) for part in parts]
    result = _OPERATORS[operator](*values)
    wrong = ~np.isfinite(result)
    if wrong.any():
        _, *columns = np.broadcast_arrays(wrong, *values)
        numbers = [f"{column[wrong.argmax()]:.6g}" for column in columns]
        infix = operator in BINDING
        shown = f" {operator} ".join(numbers) if infix else f"{operator}({', '.join(numbers)})"
        rule, fix = _RULES.get(
            operator, (f"{operator!r} has no finite value for", "; keep numbers in a range")
        )
        raise ObjectiveError(f"{rule} {shown}{fix}", position)
    return result


_OPERATORS: dict[str, Callable[..., Values]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "neg": np.negative,
    "min": lambda *values: reduce(np.minimum, values),
    "max": lambda *values: reduce(np.maximum, values),
    "log": np.log,
    "sqrt": np.sqrt,
}
_RULES: dict[str, tuple[str, str]] = {
    "/": ("divides by zero or by too small a number for", "; add a small number to the divisor"),
    "^": ("'^' has no finite value for", "; keep the base above 0 and the power in a range"),
    "log": ("a logarithm needs a positive number, found", ""),
    "sqrt": ("a square root needs a number from 0, found", ""),
}
"""What an operator needs, and the fix."""
