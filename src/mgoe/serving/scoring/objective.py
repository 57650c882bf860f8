"""The objective of a ranking: one number made of what the tasks are worth, such as `click * buy^2`.

A grammar of its own, read by recursive descent; nothing of it is run as Python. `^` binds tightest and to the right, then the sign,
then `*` and `/`, then `+` and `-`, so that `-2^2` is -4.

    sum   = term (("+" | "-") term)*
    term  = sign (("*" | "/") sign)*
    sign  = "-" sign | power
    power = atom ("^" sign)?
    atom  = number | task | function "(" sum ("," sum)* ")" | "(" sum ")"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import NDArray

from mgoe.config import did_you_mean
from mgoe.errors import MgoeError

LONGEST = 500
"""Characters of an objective."""
DEEPEST = 40
"""Parentheses, signs and powers inside one another."""
FUNCTIONS: dict[str, tuple[int, int]] = {"min": (2, 8), "max": (2, 8), "log": (1, 1), "sqrt": (1, 1)}
"""Least and most arguments of each."""
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<sign>[-+*/^(),]))"
)

Values = NDArray[np.float64]


class ObjectiveError(MgoeError):
    """An objective cannot be read, or has no value for some row.

    Args:
        position: Of the character at fault, from 0.
    """

    def __init__(self, message: str, position: int):
        self.position = position
        super().__init__("objective", f"{message} (at character {position})")


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float
    position: int


@dataclass(frozen=True)
class Task:
    """A task's probability or value."""

    name: str
    position: int


@dataclass(frozen=True)
class Call:
    """An operator or a function of one or more parts. A sign is the operator `neg`."""

    operator: str
    parts: tuple[Node, ...]
    position: int


Node = Number | Task | Call


@dataclass(frozen=True)
class Objective:
    """An objective that was read.

    Attributes:
        text: As given.
        root: Of its tree.
    """

    text: str
    root: Node

    def __call__(self, tasks: Mapping[str, NDArray[np.floating]]) -> Values:
        """One number a row.

        Args:
            tasks: Probabilities (or values) by task. Shape (B,) each.

        Returns:
            Shape (B,).

        Raises:
            ObjectiveError: A row divides by zero, or has no finite value.
        """
        rows = len(next(iter(tasks.values())))
        if not rows:  # a part without a task is still computed once, and may have no value
            return np.empty(0)
        with np.errstate(all="ignore"):
            return np.broadcast_to(_value(self.root, tasks), (rows,))


@lru_cache(maxsize=1024)
def read_objective(text: str, tasks: tuple[str, ...]) -> Objective:
    """Read an objective; clients ask by few.

    Args:
        text: Of at most `LONGEST` characters.
        tasks: Names it may hold.

    Raises:
        ObjectiveError: It does not follow the grammar, is too long or too deep, or names what is no task.
    """
    if len(text) > LONGEST:
        raise ObjectiveError(
            f"must be of at most {LONGEST} characters, found {len(text)}; write it shorter", LONGEST
        )
    return Objective(text, _Reader(text, tasks).whole())


class _Reader:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, tasks: Sequence[str]):
        self.tasks, self.depth, self.at = tasks, 0, 0
        self.tokens: list[tuple[str, str, int]] = []
        place, end = 0, len(text.rstrip())
        while place < end:
            found = _TOKEN.match(text, place)
            if found is None:
                place += len(text[place:]) - len(text[place:].lstrip())
                raise ObjectiveError(
                    f"holds {text[place]!r}, which means nothing here; use numbers, tasks, + - * / ^ and parentheses",
                    place,
                )
            kind = found.lastgroup or ""
            self.tokens.append((kind, found[kind], found.start(kind)))
            place = found.end()
        self.tokens.append(("end", "the end", end))

    def whole(self) -> Node:
        node = self._sum()
        kind, token, position = self.tokens[self.at]
        if kind != "end":
            raise ObjectiveError(f"must end or go on with an operator, found {token!r}", position)
        return node

    def _sum(self) -> Node:
        return self._chain("+-", self._term)

    def _term(self) -> Node:
        return self._chain("*/", self._sign)

    def _chain(self, operators: str, part: Callable[[], Node]) -> Node:
        node = part()
        while (found := self._take(operators)) is not None:
            node = Call(found[0], (node, part()), found[1])
        return node

    def _sign(self) -> Node:
        if (found := self._take("-")) is not None:
            return Call("neg", (self._deeper(self._sign, found[1]),), found[1])
        base = self._atom()
        if (found := self._take("^")) is not None:
            return Call("^", (base, self._deeper(self._sign, found[1])), found[1])
        return base

    def _atom(self) -> Node:
        kind, token, position = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return self._number(token, position)
        if token == "(":
            node = self._deeper(self._sum, position)
            self._close()
            return node
        if kind == "name" and token not in self.tasks and token in FUNCTIONS:
            return self._call(token, position)
        if kind == "name":
            if token not in self.tasks:
                known = f"tasks: {', '.join(self.tasks)}; functions: {', '.join(FUNCTIONS)}"
                raise ObjectiveError(
                    f"{token!r} is no task{did_you_mean(token, [*self.tasks, *FUNCTIONS])}; {known}", position
                )
            return Task(token, position)
        raise ObjectiveError(
            f"needs a number, a task or a parenthesis, found {token if kind == 'end' else repr(token)}",
            position,
        )

    @staticmethod
    def _number(token: str, position: int) -> Number:
        value = float(token)
        if not np.isfinite(value):
            raise ObjectiveError(f"a number must be below 1.8e308, found {token}", position)
        return Number(value, position)

    def _call(self, name: str, position: int) -> Node:
        if self._take("(") is None:
            raise ObjectiveError(f"{name} is a function: write {name}(...)", position)
        parts = [self._deeper(self._sum, position)]
        while self._take(",") is not None:
            parts.append(self._deeper(self._sum, position))
        self._close()
        least, most = FUNCTIONS[name]
        if not least <= len(parts) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise ObjectiveError(f"{name} takes {wanted} parts, found {len(parts)}", position)
        return Call(name, tuple(parts), position)

    def _close(self) -> None:
        if self._take(")") is None:
            kind, token, position = self.tokens[self.at]
            raise ObjectiveError(
                f"needs a closing parenthesis, found {token if kind == 'end' else repr(token)}", position
            )

    def _deeper(self, part: Callable[[], Node], position: int) -> Node:
        if self.depth == DEEPEST:
            raise ObjectiveError(f"may nest {DEEPEST} deep at most; write it flatter", position)
        self.depth += 1
        node = part()
        self.depth -= 1
        return node

    def _take(self, signs: str) -> tuple[str, int] | None:
        """The next token if it is one of these signs."""
        kind, token, position = self.tokens[self.at]
        if kind != "sign" or token not in signs:
            return None
        self.at += 1
        return token, position


def _value(node: Node, tasks: Mapping[str, NDArray[np.floating]]) -> Values:
    if isinstance(node, Number):
        return np.array([node.value])
    if isinstance(node, Task):
        return np.asarray(tasks[node.name], np.float64)
    parts = [_value(part, tasks) for part in node.parts]
    _refuse(node, parts)
    value = _OPERATORS[node.operator](parts)
    if not np.isfinite(value).all():
        rule = "has no finite value"
        raise ObjectiveError(
            f"{node.operator!r} {rule} for {_shown(node, parts, ~np.isfinite(value))}; keep numbers in a range",
            node.position,
        )
    return value


def _refuse(node: Call, parts: list[Values]) -> None:
    """What mathematics does not define, said by its name."""
    if node.operator == "/" and (zero := parts[1] == 0).any():
        raise ObjectiveError(
            f"divides by zero for {_shown(node, parts, zero)}; add a small number to the divisor",
            node.position,
        )
    if node.operator == "^" and (zero := (parts[0] == 0) & (parts[1] < 0)).any():
        raise ObjectiveError(
            f"divides by zero for {_shown(node, parts, zero)}; add a small number to the base", node.position
        )
    if node.operator == "log" and (low := parts[0] <= 0).any():
        raise ObjectiveError(
            f"a logarithm needs a positive number, found {_shown(node, parts, low)}", node.position
        )
    if node.operator == "sqrt" and (low := parts[0] < 0).any():
        raise ObjectiveError(
            f"a square root needs a number from 0, found {_shown(node, parts, low)}", node.position
        )


def _shown(node: Call, parts: list[Values], wrong: NDArray[np.bool_]) -> str:
    """The operator at the first row that is wrong, in numbers."""
    rows = np.broadcast_arrays(wrong, *parts)
    first = int(np.flatnonzero(rows[0])[0])
    numbers = [f"{column[first]:.6g}" for column in rows[1:]]
    return (
        f" {node.operator} ".join(numbers)
        if node.operator in "+-*/^"
        else f"{node.operator}({', '.join(numbers)})"
    )


_OPERATORS: dict[str, Callable[[list[Values]], Values]] = {
    "+": lambda parts: parts[0] + parts[1],
    "-": lambda parts: parts[0] - parts[1],
    "*": lambda parts: parts[0] * parts[1],
    "/": lambda parts: parts[0] / parts[1],
    "^": lambda parts: parts[0] ** parts[1],
    "neg": lambda parts: -parts[0],
    "min": lambda parts: reduce(np.minimum, parts),
    "max": lambda parts: reduce(np.maximum, parts),
    "log": lambda parts: np.log(parts[0]),
    "sqrt": lambda parts: np.sqrt(parts[0]),
}
