"""Names for what Ibis handles. It gives every column one static type, so a type checker can say nothing of their methods."""

from typing import Any

Table = Any
"""A lazy table (`ibis.expr.types.Table`)."""
Expr = Any
"""A lazy column or scalar (`ibis.expr.types.Value`)."""
