"""Tensors on disk: one safetensors file with a description and a checksum, complete or absent.

One process writes it, or several together, each the rows of tensors that it holds. The file is the same:
whole tensors, rows in order, which any number of processes can read. A model whose tables have got more rows
can start from it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mgoe.errors import TrainingError
from mgoe.training.distributed.process_group import ALONE, ProcessGroup

DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}
"""Names of the format, https://github.com/huggingface/safetensors."""
CHUNK = 1 << 26
"""Bytes copied from a device at a time."""
UNKNOWN = "?" * 64
"""Placeholder of the checksum until everything is written."""


@dataclass(frozen=True)
class Shard:
    """Rows of a tensor; other processes hold the others.

    Attributes:
        rows: The rows held here. Shape (n, ...).
        first: Index of the first of them.
        total: Number of rows over all processes.
    """

    rows: Tensor
    first: int
    total: int

    @property
    def shape(self) -> torch.Size:
        """Shape of the whole tensor."""
        return torch.Size((self.total, *self.rows.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the elements."""
        return self.rows.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.shape.numel() * self.rows.element_size()

    def take(self, whole: Tensor) -> Self:
        """Copy the rows held here from the whole tensor."""
        self.rows.copy_(whole[self.first : self.first + len(self.rows)])
        return self


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, Tensor | Shard],
    meta: Mapping[str, Any],
    processes: ProcessGroup = ALONE,
) -> None:
    """Write tensors and a description; a reader sees the old file or the new one, never a part.

    Args:
        path: The file; its folder exists.
        tensors: Tensors by name.
        meta: Description, as JSON holds it; stored in the file's header.
        processes: The processes that make this call: the first one writes, and each one writes its shards.

    Raises:
        TrainingError: The file cannot be written, such as for lack of space or permissions.

    Example:
        >>> save_checkpoint(Path("weights.safetensors"), {"w": torch.zeros(2)}, {"epoch": 3})
    """
    described = json.dumps(meta, sort_keys=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if any(isinstance(tensor, Shard) for tensor in tensors.values()):
            _write_together(unfinished, tensors, described, processes)
        elif processes.leads:
            on_cpu = {
                name: tensor.detach().cpu().contiguous()
                for name, tensor in tensors.items()
                if isinstance(tensor, Tensor)
            }
            unfinished.touch()
            mode = unfinished.stat().st_mode  # of new files here; the library writes for the owner alone
            save_file(
                on_cpu, unfinished, metadata={"meta": described, "sha256": _checksum(on_cpu, described)}
            )
            unfinished.chmod(mode)
        if processes.leads:
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            path, f"the checkpoint cannot be written: {error}; free space or choose another output folder"
        ) from None
    finally:
        if processes.leads:
            unfinished.unlink(missing_ok=True)


def _write_together(
    path: Path, tensors: Mapping[str, Tensor | Shard], described: str, processes: ProcessGroup
) -> None:
    """Write one file: the first process writes whole tensors, each process the rows that it holds, and the
    first process adds the checksum at the end.

    All processes make this call with tensors of the same names and shapes, and must see the same folder. The
    description of the first process is written.

    Raises:
        OSError: A process could not write; raised on all processes.
    """
    head, places = _layout(tensors, {"meta": described, "sha256": UNKNOWN})
    path, start = Path(processes.agree(str(path))), processes.agree(len(head))

    with _failing_together(processes):
        if processes.leads:
            with path.open("wb") as file:
                file.write(head)
                file.truncate(start + sum(tensor.nbytes for tensor in tensors.values()))
    with _failing_together(processes), path.open("r+b") as file:
        for name, tensor in tensors.items():
            if isinstance(tensor, Shard):
                file.seek(start + places[name] + tensor.first * (tensor.nbytes // max(tensor.total, 1)))
                _write_rows(file, tensor.rows)
            elif processes.leads:
                file.seek(start + places[name])
                _write_rows(file, tensor)
        file.flush()
        os.fsync(file.fileno())
    if processes.leads:
        with safe_open(path, framework="pt") as file, path.open("rb+") as same:
            written = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            same.seek(head.index(UNKNOWN.encode()))
            same.write(_checksum(written, described).encode())


@contextmanager
def _failing_together(processes: ProcessGroup) -> Iterator[None]:
    """Fail on all processes if the block fails on one."""
    trouble: OSError | None = None
    try:
        yield
    except OSError as error:
        trouble = error
    if processes.any(trouble is not None)[0]:
        raise trouble or OSError("another process could not write its rows")


def _layout(tensors: Mapping[str, Tensor | Shard], meta: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Return the header, and the offset of each tensor after it: wide elements first, so that all are
    aligned."""
    header: dict[str, Any] = {"__metadata__": dict(meta)}
    places: dict[str, int] = {}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        places[name], end = end, end + tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [places[name], end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places


def _write_rows(file: Any, rows: Tensor) -> None:
    flat = rows.detach().reshape(-1)
    step = max(1, CHUNK // flat.element_size())
    for low in range(0, flat.numel(), step):
        file.write(flat[low : low + step].cpu().contiguous().view(torch.uint8).numpy().data)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the description of a checkpoint.

    Raises:
        TrainingError: The file is missing, truncated, changed, or not a checkpoint.

    Example:
        >>> save_checkpoint(Path("weights.safetensors"), {"w": torch.zeros(2)}, {"epoch": 3})
        >>> tensors, meta = load_checkpoint(Path("weights.safetensors"))
        >>> meta["epoch"]
        3
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise TrainingError(path, "no such checkpoint; train the model first") from None
    except (OSError, SafetensorError) as error:
        raise TrainingError(path, f"the checkpoint is damaged ({error}); train the model again") from None
    if header.get("sha256") != _checksum(tensors, header.get("meta", "")):
        raise TrainingError(
            path, "the checkpoint is damaged: its checksum does not match its contents; train the model again"
        )
    return tensors, json.loads(header["meta"])


def read_meta(path: Path) -> dict[str, Any]:
    """Return the description of a checkpoint, without its tensors.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})["meta"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(path, f"the checkpoint is damaged ({error}); train the model again") from None


def load_weights(model: nn.Module, path: Path, mapped: bool = False) -> dict[str, Any]:
    """Load the weights of a checkpoint into a model; return the description.

    Args:
        model: Made with the same settings.
        path: The checkpoint.
        mapped: Whether the weights stay in the file, whose pages all processes share. They cannot be trained
            then.

    Raises:
        TrainingError: As `load_checkpoint`, or the checkpoint is of another model or graph.

    Example:
        >>> meta = load_weights(bundle.model, folder / "bundle" / "model.safetensors")
        >>> type(meta).__name__
        'dict'
    """
    tensors, meta = load_checkpoint(path)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if own != found:
        name = min(own.items() ^ found.items())[0]
        raise TrainingError(
            path,
            f"holds the weights of another model or graph: {name!r} is {found.get(name, 'missing')} there "
            f"and {own.get(name, 'missing')} here; use the settings it was trained with",
        )
    model.load_state_dict(tensors, assign=mapped)
    return meta


def _checksum(tensors: Mapping[str, Tensor], described: str) -> str:
    digest = hashlib.sha256(described.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def grown(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor | Shard]) -> dict[str, Tensor]:
    """Return tensors in the shapes of a larger model.

    The last row of a table is for unseen nodes. It stays last, and new rows before it start as its copies: a
    new node is first scored as an unseen one.

    Args:
        tensors: Weights and optimiser state by name, such as a fit wrote them.
        like: The tensors of the larger model; other names are left out.

    Raises:
        TrainingError: A tensor differs in more than its number of rows, or has fewer.

    Example:
        >>> grown({"table": torch.tensor([[1.0], [0.0]])}, {"table": torch.empty(3, 1)})["table"].tolist()
        [[1.0], [0.0], [0.0]]
    """
    return {name: _grown(name, tensors[name], like[name].shape) for name in like if name in tensors}


def _grown(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    if tensor.shape == shape:
        return tensor
    if not shape or tensor.shape[1:] != shape[1:] or not 0 < len(tensor) < shape[0]:
        raise TrainingError(
            "start",
            f"{name!r} must have the shape {tuple(shape)}, or fewer rows, found {tuple(tensor.shape)}; start "
            "from weights of the same model",
        )
    last = tensor[-1:]
    return torch.cat([tensor[:-1], last.expand(shape[0] - len(tensor), *shape[1:]), last])
