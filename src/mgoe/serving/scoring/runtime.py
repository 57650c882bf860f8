"""What runs a model in a service, and how precisely."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import model_validator

from mgoe.config import Settings
from mgoe.errors import ConfigError

Precision: TypeAlias = Literal["float32", "bfloat16", "int8"]


class Runtime(Settings):
    """How a `Scorer` runs its model."""

    engine: Literal["onnx", "torch"] = "onnx"
    """`onnx` is ONNX Runtime; `torch` is the reference."""
    precision: Precision = "float32"
    """`bfloat16` halves the memory of the item rows; `int8` also quantises the weights of matrix products."""

    @model_validator(mode="after")
    def _engine_has_the_precision(self) -> Runtime:
        if self.engine == "torch" and self.precision == "int8":
            rule = "int8 needs the engine onnx, found torch"
            raise ConfigError("precision", f"{rule}; choose onnx, or bfloat16, which halves the item rows")
        return self
