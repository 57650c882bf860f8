"""Objectives have the value that Python computes, and every error names its character."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mgoe.bundle.objective import DEEPEST, LONGEST, ObjectiveError, read_objective

TASKS = ("click", "buy", "cart")
ROWS = {"click": np.array([0.5, 0.1]), "buy": np.array([0.25, 0.9]), "cart": np.array([0.3, 0.7])}
PYTHON = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": lambda a, b: a**b,
    "neg": lambda a: -a,
    "min": min,
    "max": max,
    "log": math.log,
    "sqrt": math.sqrt,
}
numbers = st.floats(0, 9).map(lambda x: round(x, 3))
Tree = float | str | tuple[str, tuple]
"""A number, a task, or an operator or function with its parts."""
trees = st.recursive(
    st.one_of(numbers, st.sampled_from(TASKS)),
    lambda tree: st.one_of(
        st.tuples(st.sampled_from("+-*/^"), st.tuples(tree, tree)),
        st.tuples(st.sampled_from(["neg", "log", "sqrt"]), st.tuples(tree)),
        st.tuples(st.sampled_from(["min", "max"]), st.lists(tree, min_size=2, max_size=4).map(tuple)),
    ),
    max_leaves=8,
)


def written(tree: Tree) -> str:
    """Write every part in parentheses."""
    if not isinstance(tree, tuple):
        return str(tree)
    operator, parts = tree[0], [written(part) for part in tree[1]]
    if operator == "neg":
        return f"(-{parts[0]})"
    return f"({parts[0]} {operator} {parts[1]})" if operator in "+-*/^" else f"{operator}({', '.join(parts)})"


def by_hand(tree: Tree, row: int) -> Any:
    """Compute a tree with Python's operators; ArithmeticError or ValueError where it has no value."""
    if isinstance(tree, float):
        return tree
    if isinstance(tree, str):
        return float(ROWS[tree][row])
    value = PYTHON[tree[0]](*(by_hand(part, row) for part in tree[1]))
    if isinstance(value, complex) or not math.isfinite(value):
        raise ArithmeticError(value)
    return value


def defined(tree: Tree) -> list[float] | None:
    try:
        return [by_hand(tree, row) for row in range(2)]
    except (ArithmeticError, ValueError):
        return None


@given(tree=trees)
def test_the_value_is_the_one_that_python_computes(tree: Tree):
    expected = defined(tree)
    objective = read_objective(written(tree), TASKS)
    if expected is None:
        with pytest.raises(ObjectiveError):
            objective(ROWS)
    else:
        assert_allclose(objective(ROWS), expected, rtol=1e-9, atol=1e-12)


@given(
    text=st.lists(
        st.sampled_from(["click", "buy", "1.5", "2", "+", "-", "*", "/", "^", "(", ")", " "]), max_size=12
    ).map(" ".join)
)
def test_operators_bind_as_in_python(text: str):
    try:
        found = read_objective(text, TASKS)(ROWS)
    except ObjectiveError:
        return
    python = text.replace("^", "**")
    expected = [
        eval(python, {}, {name: float(ROWS[name][row]) for name in ("click", "buy")}) for row in range(2)
    ]
    assert_allclose(found, expected, rtol=1e-9)


@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str):
    position = 0
    try:
        read_objective(text, TASKS)
    except ObjectiveError as error:
        position = error.position
    assert 0 <= position <= len(text)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("click * bu", 8, "did you mean 'buy'"),
        ("click / (buy - buy)", 6, "divides by zero .* for 0.5 / 0; add a small"),
        ("(click - click)^(0-1)", 15, "no finite value for 0 \\^ -1; keep the base above 0"),
        ("log(click - 2)", 0, "positive"),
        ("sqrt(0 - buy)", 0, "from 0"),
        ("(0 - click)^0.5", 11, "no finite value"),
        ("click *", 7, "found the end"),
        ("click buy", 6, "operator"),
        ("(click", 6, "closing"),
        ("", 0, "needs a number"),
        ("   ", 0, "needs a number"),
        ("click $ 2", 6, "means nothing"),
        ("min(click)", 0, "2 to 8 parts"),
        ("log", 0, "is a function"),
        ("1e999", 0, "below"),
        ("9^999", 1, "no finite value"),
        ("__import__('os')", 11, "means nothing"),
        ("__import__(click)", 0, "not a task"),
        ("(" * (DEEPEST + 1), DEEPEST, "deep"),
        ("-" * 400 + "1", DEEPEST, "deep"),
        ("1" * (LONGEST + 1), LONGEST, "characters"),
    ],
)
def test_an_error_names_its_character(text: str, position: int, message: str):
    with pytest.raises(ObjectiveError, match=message) as raised:
        read_objective(text, TASKS)(ROWS)
    assert raised.value.position == position


@pytest.mark.parametrize("name", ["log", "return", "is", "café"])
def test_a_task_may_have_the_name_of_a_function_or_a_keyword(name: str):
    assert read_objective(f"{name} * 2", (name,))({name: np.array([3.0])}).tolist() == [6.0]


@pytest.mark.parametrize("text", ["click / 0", "0^-1", "log(0)", "sqrt(-1)", "9^999", "click"])
def test_an_objective_of_no_rows_is_empty(text: str):
    assert read_objective(text, TASKS)({task: np.empty(0) for task in TASKS}).shape == (0,)


def test_a_constant_has_one_value_per_row():
    assert read_objective("2^3^2 - -1", TASKS)(ROWS).tolist() == [513.0, 513.0]
