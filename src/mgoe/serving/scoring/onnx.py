"""Models in ONNX: for the scorer's own sessions, and whole, for those who serve themselves. PyTorch is the reference.

A graph has one input a key of the batch and one output; the first axis of every input is free.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mgoe import __version__
from mgoe._util.extras import load
from mgoe._util.files import output_errors, remove_folder, sha256, sync
from mgoe.errors import StoreError
from mgoe.models import Batch, FoldedHalves, Halves, RankingModel, batch_keys, expanded, neutral

Precision: TypeAlias = Literal["float32", "bfloat16", "int8"]
Runtime: TypeAlias = Literal["onnx", "torch"]
T = TypeVar("T")
NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra: two to export, one to run."""
UNUSED = 7 * 24 * 3600
"""Seconds after which kept graphs go: long enough for a service to go back to an earlier bundle, or another one to start beside it."""


def package(name: str) -> Any:
    """A package of the extra `onnx`.

    Raises:
        MissingExtra: It is not installed.
    """
    return load(name, "onnx", name, "pip install 'mgoe[onnx]'")


class Traced(nn.Module):
    """A function of named tensors as one of tensors in order, which is what an exporter reads."""

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
    fixed: Collection[str] = (),
    lists: Collection[str] = (),
    across: Collection[str] = (),
) -> None:
    """Write a function as an ONNX graph whose output is `out`; weights lie beside it, in `<name>.data`.

    Args:
        out: The file.
        owner: Holds the weights.
        compute: What to export, from named tensors to one.
        sample: Several rows of every key that it reads, by which shapes are traced.
        fixed: Keys whose first axis stays as in the sample.
        lists: Keys whose second axis is free too.
        across: Keys whose second axis is that of rows, and whose first stays.

    Raises:
        MissingExtra: The extra is not installed.
    """
    for needed in NEEDED[:2]:
        package(needed)
    out.parent.mkdir(exist_ok=True)
    names = sorted(sample)
    rows = torch.export.Dim("rows", min=1)
    free = {
        name: {1: torch.export.Dim(f"length{k}", min=1)} if name in lists else {}
        for k, name in enumerate(names)
    }
    shapes = tuple(
        {} if name in fixed else {1: rows} if name in across else {0: rows, **free[name]} for name in names
    )
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            Traced(owner, compute, names).eval(), tuple(sample[name] for name in names), dynamo=True, verbose=False,
            dynamic_shapes=(shapes,), input_names=names, output_names=["out"],
        )  # fmt: skip
        assert program is not None
        program.save(out, external_data=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell of what they do not fold or expect, which changes nothing; what others log meanwhile is left alone."""
    loggers = {
        logging.getLogger(name): logging.getLogger(name).level
        for name in ("torch.onnx", "onnxscript", "onnx_ir")
    }
    root = logging.getLogger()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    root.addFilter(_not_root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeFilter(_not_root)
        for logger, level in loggers.items():
            logger.setLevel(level)


def _not_root(record: logging.LogRecord) -> bool:
    return record.name != "root"


class Session:
    """A graph that runs on one thread.

    Args:
        file: Of the graph. Its weights are read from the disk as they are needed.
    """

    def __init__(self, file: Path):
        runtime = package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.names = [given.name for given in self._session.get_inputs()]

    def __call__(self, batch: Mapping[str, NDArray]) -> NDArray[np.float32]:
        """Run it on arrays by name; others are passed over."""
        return self._session.run(None, {name: batch[name] for name in self.names})[0]


ROWS = ("row.user", "row.item")
"""Names of what the user and the items add, beside the keys of the batch."""
MIXED = "mixed"
"""Of their mixed sum, see `FoldedHalves`."""


class Sessions:
    """What a service runs of a model at every request, in ONNX Runtime: `Halves.user`, and `Halves.join` or
    `FoldedHalves.towers`.

    Args:
        halves: Of a model.
        known: What `user` reads, one row.
        late: What `join` reads beside the rows of the user and of the items: keys of the user in one row, others in several.
        precision: `int8` quantises the weights of products in what runs for every candidate.
        kept: Folder where graphs are kept from one start to the next; None: nowhere.
        weights: Tells apart what may lie there.
    """

    def __init__(
        self,
        halves: Halves,
        known: Batch,
        late: Batch,
        precision: Precision,
        kept: Path | None = None,
        weights: str = "",
    ):
        def write(folder: Path) -> None:
            if halves.width:
                export(folder / "user.onnx", halves, halves.user, known, fixed=known)
            export_rest(folder / "rest.onnx", halves, late)
            if precision == "int8":
                quantise(folder / "rest.onnx", folder / "int8.onnx")

        def read(folder: Path) -> tuple[Session | None, Session]:
            rest = Session(folder / ("int8.onnx" if precision == "int8" else "rest.onnx"))
            return Session(folder / "user.onnx") if halves.width else None, rest

        shapes = [
            (name, list(value.shape)) for batch in (known, late) for name, value in sorted(batch.items())
        ]
        files = {
            inspect.getfile(type(part)) for part in halves.modules()
        }  # some may be of the user's own, without a version
        code = sorted(sha256(Path(file)) for file in files)
        made_of = [
            weights,
            precision,
            shapes,
            code,
            __version__,
            torch.__version__,
            package("onnxruntime").__version__,
        ]
        self._user, self._rest = _graphs(
            kept, hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:24], write, read
        )
        self._halves = halves
        self._widths = {
            key: value.shape[1:]
            for key, value in (known | late).items()
            if key.startswith("context.") and value.ndim > 1
        }

    def _fits(self, batch: Batch) -> bool:
        """Whether no list of a context is longer than the graphs, whose widths are fixed, have place for."""
        return all(batch[key].shape[1:] == width for key, width in self._widths.items() if key in batch)

    def user(self, known: Batch) -> Tensor:
        """(1, F), or (B, F) where contexts differ."""
        if self._user is None or max(value.shape[0] for value in known.values()) > 1 or not self._fits(known):
            return self._halves.user(known)
        return torch.from_numpy(self._user({key: value.numpy() for key, value in known.items()}))

    def join(self, user: Tensor, items: Tensor, late: Batch) -> Tensor:
        """Logits (B, T)."""
        if user.shape[0] > 1:
            items, user = items + user, torch.zeros_like(user[:1])
        if not self._fits(late):
            return self._halves.join(user, items, late)
        arrays = {key: value.numpy() for key, value in (*late.items(), (ROWS[0], user), (ROWS[1], items))}
        return torch.from_numpy(self._rest(arrays))

    def towers(self, h: Tensor) -> Tensor:
        """Logits (B, T), see `FoldedHalves`."""
        return torch.from_numpy(self._rest({MIXED: h.numpy()}))


def _graphs(kept: Path | None, name: str, write: Callable[[Path], None], read: Callable[[Path], T]) -> T:
    """What is read of a folder of graphs: that of an earlier start, or one that is written now. Writing takes seconds of a core, which a
    service that changes bundles under load has not; a refreshed bundle has the weights of the one before.

    Raises:
        StoreError: They cannot be written.
    """
    parent = kept / "onnx" if kept else Path(tempfile.gettempdir())
    try:
        if kept and _there(parent / name):
            try:
                return read(parent / name)
            except Exception:  # damaged: ONNX Runtime's errors have no class in common
                remove_folder(parent / name)
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as scratch:
            folder = Path(scratch) / name
            folder.mkdir()
            write(folder)
            return read(_settled(folder, parent / name) if kept else folder)
    except OSError as error:
        raise StoreError(
            parent,
            f"the graphs of the model cannot be written: {error.strerror or error}; free space, or mend rights",
        ) from None


def _settled(folder: Path, place: Path) -> Path:
    """Give graphs their place, durably, unless another worker has been faster."""
    for path in (*folder.iterdir(), folder):
        sync(path)
    try:
        folder.rename(place)
    except OSError:
        if not place.is_dir():
            raise
    sync(place.parent)
    return place


def _there(place: Path) -> bool:
    """Whether graphs lie at a place, which counts as used now; others that nobody has used for long go. One process at a time, so that none
    go between a look at them and their use."""
    with suppress(OSError):
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if place.is_dir():
                os.utime(place)
            for other in place.parent.iterdir():
                if time.time() - other.stat().st_mtime > UNUSED:
                    remove_folder(other)
        finally:
            os.close(folder)
    return place.is_dir()


def export_rest(out: Path, halves: Halves, late: Batch) -> None:
    """What is computed for every candidate: `join`, or `towers` where their sums are made as rows are read."""
    if isinstance(halves, FoldedHalves) and halves.mixed is not None:
        experts, tasks, gates = halves.mixed
        width = (halves.width - experts * gates) // (experts * tasks)
        export(
            out,
            halves,
            lambda batch: halves.towers(batch[MIXED]),
            {MIXED: torch.zeros(tasks, 2, width)},
            across=[MIXED],
        )
        return
    rows = max((2, *(value.shape[0] for value in late.values())))  # one would be taken for a constant
    sample = {ROWS[0]: torch.zeros(1, halves.width), ROWS[1]: torch.zeros(rows, halves.width), **late}
    one = [ROWS[0], *(key for key, value in late.items() if value.shape[0] == 1)]
    export(out, halves, lambda batch: halves.join(batch[ROWS[0]], batch[ROWS[1]], batch), sample, fixed=one)


def quantise(file: Path, out: Path) -> None:
    """The same graph with weights of 8 bits in its products, whose inputs are quantised as they come (ONNX Runtime's dynamic scheme)."""
    quantization = package("onnxruntime.quantization")
    out.parent.mkdir(exist_ok=True)
    with _quiet():
        quantization.quantize_dynamic(
            file, out, op_types_to_quantize=["Gemm", "MatMul"], weight_type=quantization.QuantType.QInt8
        )


class Exported:
    """A whole model as `export_whole` wrote it: a batch in, `predict`'s answer out."""

    def __init__(self, file: Path):
        self._session = Session(file)

    def __call__(self, batch: Batch) -> Tensor:
        return torch.from_numpy(self._session({key: value.numpy() for key, value in batch.items()}))


def export_whole(model: RankingModel, out: Path, precision: Literal["float32", "int8"] = "float32") -> None:
    """Write a whole model, for those who serve it themselves: a batch by its keys in, `out` (B, T) as `predict` gives it.

    Files appear when they are whole: `out`, and its weights in `<name>.data` beside it.

    Raises:
        MissingExtra: The extra is not installed.
        OutputError: They cannot be written.
    """
    names = batch_keys(model.spec, model.needs)
    sample = {key: value.clone() for key, value in expanded(neutral(model.spec), 3).items() if key in names}
    kinds = {kind: getattr(model.spec, kind) for kind in ("user_side", "item_side", "context")}
    lists = [
        key
        for kind, features in kinds.items()
        for one in features
        if one.multi and (key := f"{kind}.{one.name}") in sample
    ]
    sample |= {key: torch.full((3, 2), -1) for key in lists}
    with output_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
            export(Path(scratch) / "plain" / out.name, model, model.predict, sample, lists=lists)
            if precision == "int8":
                quantise(Path(scratch) / "plain" / out.name, Path(scratch) / "int8" / out.name)
            made = Path(scratch) / ("int8" if precision == "int8" else "plain")
            for file in sorted(made.iterdir(), reverse=True):  # the weights first
                os.replace(file, out.parent / file.name)
