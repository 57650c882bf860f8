"""Models as ONNX graphs: the parts that a service runs, and whole models for other runtimes.

A graph has one input per batch key and one output, `out`. PyTorch is the reference.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgoe._util.extras import install, load
from mgoe._util.files import output_errors
from mgoe.models import Batch, RankingModel, batch_keys, expanded, neutral

NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra: two to export, one to run."""


def package(name: str) -> Any:
    """Return a package of the extra `onnx`.

    ONNX Runtime would look up its maker's host and write a number of this device below the home folder when
    it is imported. It does neither here, unless ORT_DISABLE_TELEMETRY is set to something else.

    Raises:
        MissingExtra: It is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return load(name, "onnx", name, install("onnx"))


class _Positional(nn.Module):
    """A function of named tensors as a module of positional ones, which is what the exporter reads."""

    def __init__(self, owner: nn.Module, compute: Callable[[Batch], Tensor], names: Sequence[str]):
        super().__init__()
        self.owner, self._compute, self.names = owner, compute, list(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        return self._compute(dict(zip(self.names, tensors, strict=True)))


def export(
    out: Path,
    owner: nn.Module,
    compute: Callable[[Batch], Tensor],
    sample: Batch,
    free: Mapping[str, Mapping[int, str]],
) -> None:
    """Write a function as an ONNX graph; its weights are stored next to it, in `<name>.data`.

    Args:
        out: The file.
        owner: The module that holds the weights.
        compute: The function, from named tensors to one tensor.
        sample: A value of every input, by which shapes are traced. A free axis has at least two entries,
            because the exporter takes an axis of one entry for a constant.
        free: The axes of each input that may have any size, as `{axis: label}`. Axes with one label are of
            one size.

    Raises:
        MissingExtra: The extra is not installed.
    """
    for needed in NEEDED[:2]:
        package(needed)
    out.parent.mkdir(exist_ok=True)
    names = sorted(sample)
    sizes = {label: torch.export.Dim(label, min=1) for axes in free.values() for label in axes.values()}
    shapes = tuple({axis: sizes[label] for axis, label in free.get(name, {}).items()} for name in names)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Positional(owner, compute, names).eval(), tuple(sample[name] for name in names), dynamo=True,
            verbose=False, dynamic_shapes=(shapes,), input_names=names, output_names=["out"],
        )  # fmt: skip
        assert program is not None
        program.save(out, external_data=True)


def export_whole(model: RankingModel, out: Path) -> None:
    """Write a whole model for another runtime: batches by their keys in, `out` (B, T) as `predict` gives it.

    The graph `out` and its weights in `<name>.data` appear when they are complete.

    Raises:
        MissingExtra: The extra is not installed.
        OutputError: The files cannot be written.
    """
    keys = batch_keys(model.spec, model.needs)
    sample = {name: value.clone() for name, value in expanded(neutral(model.spec, model.needs), 3).items()}
    free = {name: {0: "rows"} for name in sample}
    for number, name in enumerate(sample):
        if keys[name].kind == "category" and keys[name].multi:
            sample[name] = torch.full((3, 2), -1)
            free[name][1] = f"length{number}"
    with output_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
            export(Path(scratch) / out.name, model, model.predict, sample, free)
            for written in sorted(Path(scratch).iterdir(), reverse=True):  # the weights first
                os.replace(written, out.parent / written.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters, which report what they do not fold; leave what other threads log alone."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    root = logging.getLogger()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    root.addFilter(_not_of_root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_not_of_root)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _not_of_root(record: logging.LogRecord) -> bool:
    return record.name != "root"
