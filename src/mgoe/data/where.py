"""The rows of a log that count (`data.where`): one condition on the columns of a row, in any engine.

It is written as in Python and becomes an expression of Ibis. Nothing of it is run as Python.
"""

import ast
import operator
from functools import reduce
from itertools import pairwise
from keyword import iskeyword
from typing import Any

import ibis
import ibis.expr.types as ir

from mgoe.config import DataSettings, did_you_mean
from mgoe.data.columns import Expr, Table
from mgoe.errors import ConfigError

OPERATORS: dict[type[ast.AST], Any] = {
    ast.And: operator.and_, ast.Or: operator.or_, ast.Not: operator.invert, ast.USub: operator.neg,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Add: operator.add, ast.Sub: operator.sub,
    ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Mod: operator.mod,
}  # fmt: skip
METHODS = (
    *("startswith", "endswith", "contains", "re_search", "lower", "upper", "strip", "length"),
    *("isnull", "notnull", "between", "abs"),
)
"""Of Ibis, that a condition may call."""


def rows_where(source: Table, data: DataSettings) -> Table:
    """Return the rows of a log for which `data.where` holds; all without one.

    Args:
        source: The log, in any engine.
        data: Its settings.

    Raises:
        ConfigError: It is not one condition on columns of the log.

    Example:
        >>> import ibis
        >>> rows = ibis.memtable({"item": ["a", "b", "c"], "quantity": [2, -1, None]})
        >>> rows_where(rows, DataSettings(log=["-"], where="quantity > 0")).to_pyarrow()["item"].to_pylist()
        ['a']
    """
    if data.where is None:
        return source
    try:
        tree = ast.parse(data.where.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _refused("must be one condition", repr(data.where)) from None
    try:
        found = _value(tree, source)
    except ConfigError:
        raise
    except Exception as error:  # Ibis has errors of several kinds about types
        reason = str(error) if "\n" not in str(error) else "an argument of another type"
        raise _refused("must compare values of one type", f"{data.where!r}: {reason}") from None
    if not isinstance(found, ir.BooleanColumn):
        kind = f"{data.where!r}, which is of the type {found.type()}"
        raise _refused("must be true or false for each row", kind)
    return source.filter(found)


def column_in_condition(name: str) -> str:
    """Return how a condition names a column: by its name alone if Python can read it as one.

    Example:
        >>> column_in_condition("quantity"), column_in_condition("Order Quantity")
        ('quantity', "_['Order Quantity']")
    """
    plain = name.isidentifier() and name.isascii() and not iskeyword(name)  # Python normalises others
    return name if plain else f"_[{name!r}]"


def _refused(rule: str, found: str) -> ConfigError:
    fix = "write it as in: quantity > 0 and not invoice.startswith('C')"
    return ConfigError("data.where", f"{rule}, found {found}; {fix}")


def _value(node: ast.expr, source: Table) -> Expr:
    """Return a part of a condition as an expression of Ibis."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return ibis.literal(value)
        case (
            ast.Name(id=name) | ast.Subscript(value=ast.Name(id="_"), slice=ast.Constant(value=str() as name))
        ):
            if name not in source.columns:
                rule = "must name columns of the log"
                raise _refused(rule, f"{name!r}{did_you_mean(name, source.columns)}")
            return source[name]
        case ast.BoolOp(op=op, values=parts):
            return reduce(OPERATORS[type(op)], [_value(part, source) for part in parts])
        case ast.UnaryOp(op=op, operand=part) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(part, source))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left, source), _value(right, source))
        case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as op], comparators=[right]) if isinstance(
            right, ast.List | ast.Tuple
        ):
            value = _value(left, source)
            among = reduce(operator.or_, [value == _value(part, source) for part in right.elts])
            return among if isinstance(op, ast.In) else ~among
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(op) in OPERATORS for op in ops):
            pairs = pairwise([_value(part, source) for part in (left, *rest)])
            return reduce(
                operator.and_, [OPERATORS[type(op)](*pair) for op, pair in zip(ops, pairs, strict=True)]
            )
        case ast.Call(func=ast.Attribute(value=part, attr=name), args=args, keywords=[]) if name in METHODS:
            return getattr(_value(part, source), name)(*[_value(one, source) for one in args])
    raise _refused("must be a condition on the columns of a row", repr(ast.unparse(node)))
