"""A model's graphs in ONNX Runtime: what a service runs for every request. Until they are exported, PyTorch
computes the same.

Exported graphs are kept from one start of a service to the next: an export takes seconds of a core, which a
service that replaces its bundle under load does not have, and a refreshed bundle usually has the weights of
the one before.

Axes: `B` candidates, `T` tasks, `F` floats per row of the first layers.
"""

import hashlib
import inspect
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from mgoe import __version__
from mgoe._util.files import durable_folder, remove_folder, sha256
from mgoe.errors import StoreError
from mgoe.models import Batch, Decomposition
from mgoe.serving.scoring.onnx_export import export, package

FIRST = "first"
"""Inputs of the graphs beside the keys of a batch: the pieces of the sum of what `user` and `item` give (the
name and a number)."""
MAX_GRAPHS = 8
"""Graphs that are kept, the newest: enough to return to an earlier bundle."""


class Session:
    """A graph, run on one thread.

    Args:
        file: The graph. Its weights are read from the disk as they are needed.
    """

    def __init__(self, file: Path):
        runtime = package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]

    def __call__(self, batch: Batch) -> Tensor:
        """Run the graph on a batch; keys that it does not read are ignored."""
        return torch.from_numpy(
            self._session.run(None, {name: batch[name].numpy() for name in self._names})[0]
        )


class Sessions:
    """`user` and `rest` of a model's decomposition, run by ONNX Runtime, or by PyTorch until there
    are graphs: those that are kept are opened at once, others after `export` or `open`.

    Args:
        decomposition: The decomposition.
        user: A sample of what `user` reads, one row.
        candidates: A sample of what `rest` reads beside the rows of the user and of the items: one row of a
            user's key, several of any other.
        cache: Folder that keeps graphs from one start to the next; None keeps nothing.
        weights: Identifies the weights in the cache.
        prepared: Folder with graphs that others have made, which is only read.
    """

    def __init__(
        self,
        decomposition: Decomposition,
        user: Batch,
        candidates: Batch,
        cache: Path | None = None,
        weights: str = "",
        prepared: Path | None = None,
    ):
        self._decomposition, self._samples = decomposition, (user, candidates)
        self._user: Session | None = None
        self._rest: Session | None = None
        self._widths = {
            key: value.shape[1:]
            for key, value in (user | candidates).items()
            if key.startswith("context.") and value.ndim > 1
        }
        name = Path("onnx", self._fingerprint(user, candidates, weights))
        self._place = cache and cache / name
        if prepared is not None:
            with suppress(Exception):  # missing, or damaged: ONNX Runtime's errors have no class in common
                self._open(prepared / name)
        if not self.exported:
            self.open()

    @property
    def exported(self) -> bool:
        """Whether ONNX Runtime runs the model."""
        return self._rest is not None

    def open(self) -> bool:
        """Open the graphs of the cache, and return whether they were there. Damaged ones are removed."""
        if self._place and self._place.is_dir():
            try:
                self._open(self._place)
            except Exception:  # damaged: ONNX Runtime's errors have no class in common
                remove_folder(self._place)
        return self.exported

    def export(self) -> None:
        """Export the graphs and open them.

        Raises:
            MissingExtra: A package of the extra `onnx` is not installed.
            StoreError: They cannot be written.
        """
        with new_graphs(self._place) as folder:
            self._write(folder, *self._samples)
            self._open(folder)

    def user(self, batch: Batch) -> Tensor:
        """What the user adds to the first layers. Shape (1, F)."""
        return self._user(batch) if self._user and self._fits(batch) else self._decomposition.user(batch)

    def rest(self, pieces: Sequence[Tensor], batch: Batch) -> Tensor:
        """Logits from the pieces of what user and items give together, see `Decomposition`. Shape (B, T)."""
        if self._rest is None or not self._fits(batch):
            return self._decomposition.rest(pieces, batch)
        return self._rest(batch | dict(zip(_names(pieces), pieces, strict=True)))

    def _fingerprint(self, user: Batch, candidates: Batch, weights: str) -> str:
        """Return a name for the graphs that changes with whatever they are made of."""
        shapes = [
            (name, list(value.shape)) for batch in (user, candidates) for name, value in sorted(batch.items())
        ]
        files = {
            inspect.getfile(type(part)) for part in self._decomposition.modules()
        }  # the user's own models, too
        code = sorted(sha256(Path(file)) for file in files)
        versions = [__version__, torch.__version__, package("onnxruntime").__version__]
        made_of = json.dumps([weights, shapes, code, versions])
        return hashlib.sha256(made_of.encode()).hexdigest()[:24]

    def _write(self, folder: Path, user: Batch, candidates: Batch) -> None:
        decomposition, rest = self._decomposition, folder / "rest.onnx"
        if decomposition.width:
            export(folder / "user.onnx", decomposition, decomposition.user, user, {})
        rows = max((2, *(value.shape[0] for value in candidates.values())))
        names = _names(decomposition.pieces)
        first = [torch.zeros(rows, floats) for floats in decomposition.pieces]
        sample = dict(zip(names, first, strict=True)) | candidates
        free = {key: {0: "rows"} for key, value in sample.items() if value.shape[0] > 1}
        export(
            rest,
            decomposition,
            lambda batch: decomposition.rest([batch[name] for name in names], batch),
            sample,
            free,
        )

    def _open(self, folder: Path) -> None:
        user = Session(folder / "user.onnx") if self._decomposition.width else None
        self._rest, self._user = Session(folder / "rest.onnx"), user

    def _fits(self, batch: Batch) -> bool:
        """Whether no list of a context is longer than the graphs, whose widths are fixed, have place for."""
        return all(batch[key].shape[1:] == width for key, width in self._widths.items() if key in batch)


def _names(pieces: Sequence[object]) -> list[str]:
    """Return the graph's inputs for the pieces of rows."""
    return [f"{FIRST}{number}" for number in range(len(pieces))]


@contextmanager
def new_graphs(place: Path | None) -> Iterator[Path]:
    """Yield a folder for new graphs, which are kept at a place if one is given.

    Raises:
        StoreError: Graphs cannot be written.
    """
    parent = place.parent if place else Path(tempfile.gettempdir())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with durable_folder(place) if place else tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        rule = f"the graphs of the model cannot be written: {error.strerror or error}"
        raise StoreError(parent, f"{rule}; free space, or fix the rights of the folder") from None
    with suppress(OSError):  # another process removes them, too
        for old in (
            sorted(parent.iterdir(), key=lambda one: -one.stat().st_mtime)[MAX_GRAPHS:] if place else ()
        ):
            remove_folder(old)
