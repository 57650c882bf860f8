"""What runs a model in a service, and how precisely."""

from __future__ import annotations

from typing import Literal, TypeAlias

from mgoe.config import Settings

Precision: TypeAlias = Literal["float32", "bfloat16"]


class Runtime(Settings):
    """How a `Scorer` runs its model."""

    engine: Literal["onnx", "torch"] = "onnx"
    """`onnx` is ONNX Runtime; `torch` is the reference."""
    precision: Precision = "float32"
    """`bfloat16` halves the memory of the item rows."""
