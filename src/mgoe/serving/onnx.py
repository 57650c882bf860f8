"""Models in ONNX: for the scorer's own sessions, and whole, for those who serve themselves. PyTorch is the reference.

A graph has one input a key of the batch and one output; the first axis of every input is free.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mgoe.errors import MissingExtra
from mgoe.models import Batch, Halves

Precision: TypeAlias = Literal["float32", "bfloat16", "int8"]


def load(name: str) -> Any:
    """A package of the extra `onnx`.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra(name, "this needs the extra `onnx`; install it with: pip install 'mgoe[onnx]'") from None


class Traced(nn.Module):
    """A function of named tensors as one of tensors in order, which is what an exporter reads."""

    def __init__(self, owner: nn.Module, compute: Callable[[Batch], Tensor], names: Sequence[str]):
        super().__init__()
        self.owner, self._compute, self.names = owner, compute, list(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        return self._compute(dict(zip(self.names, tensors, strict=True)))


def export(owner: nn.Module, compute: Callable[[Batch], Tensor], sample: Batch, fixed: frozenset[str] = frozenset()) -> Any:
    """The ONNX model of a function.

    Args:
        owner: Holds its weights.
        compute: What to export, from named tensors to one.
        sample: Two rows or more of every key it reads, by which shapes are traced.
        fixed: Keys whose first axis stays as in the sample.

    Returns:
        An `onnx.ModelProto` whose output is `out`.

    Raises:
        MissingExtra: The extra is not installed.
    """
    load("onnx"), load("onnxscript")
    names = sorted(sample)
    rows = torch.export.Dim("rows", min=1)
    shapes = tuple({} if name in fixed else {0: rows} for name in names)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Traced(owner, compute, names).eval(), tuple(sample[name] for name in names), dynamo=True, verbose=False,
            dynamic_shapes=(shapes,), input_names=names, output_names=["out"],
        )  # fmt: skip
    assert program is not None
    return program.model_proto


class Session:
    """A graph that runs on one thread.

    Args:
        model: An `onnx.ModelProto`, or the file of one.
    """

    def __init__(self, model: Any):
        runtime = load("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        source = str(model) if isinstance(model, Path) else model.SerializeToString()
        self._session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.names = [given.name for given in self._session.get_inputs()]

    def __call__(self, batch: Mapping[str, NDArray]) -> NDArray[np.float32]:
        """Run it on arrays by name; others are passed over."""
        return self._session.run(None, {name: batch[name] for name in self.names})[0]


ROWS = ("row.user", "row.item")
"""Names of what the user and the items add, beside the keys of the batch."""


class JoinSession:
    """`Halves.join` in ONNX Runtime.

    Args:
        halves: Of a model.
        sample: What it reads: the user's row (1, F), items' rows (B, F), and a batch whose keys of the user have one row.
        precision: `int8` quantises the weights of its products.
    """

    def __init__(self, halves: Halves, sample: tuple[Tensor, Tensor, Batch], precision: Precision):
        user, items, late = sample
        one = frozenset({ROWS[0], *(key for key, value in late.items() if value.shape[0] == 1)})
        model = export(
            halves,
            lambda batch: halves.join(batch[ROWS[0]], batch[ROWS[1]], {key: batch[key] for key in late}),
            {ROWS[0]: user, ROWS[1]: items, **late},
            one,
        )
        self._session = Session(quantised(model) if precision == "int8" else model)

    def __call__(self, user: Tensor, items: Tensor, late: Batch) -> NDArray[np.float32]:
        """Logits (B, T)."""
        if user.shape[0] > 1:  # a context a candidate
            items, user = items + user, torch.zeros_like(user[:1])
        return self._session({ROWS[0]: user.numpy(), ROWS[1]: items.numpy()} | {key: value.numpy() for key, value in late.items()})


def quantised(model: Any) -> Any:
    """The same with weights of 8 bits in its matrix products, their inputs quantised as they come (ONNX Runtime's dynamic quantisation)."""
    load("onnxruntime")
    quantization = importlib.import_module("onnxruntime.quantization")
    logging.getLogger().disabled, before = True, logging.getLogger().disabled
    with tempfile.TemporaryDirectory() as folder:
        before_, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        load("onnx").save(model, before_)
        try:
            quantization.quantize_dynamic(before_, after, weight_type=quantization.QuantType.QInt8, per_channel=True)
        finally:
            logging.getLogger().disabled = before
        return load("onnx").load(after)
