"""Rows of a tensor that one process holds, and one file into which all processes write their rows.

The file is that of `save_checkpoint`: whole tensors, rows in order. Any number of processes can read it,
whatever number wrote it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgoe.training.distributed.process_group import ProcessGroup

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

    def take(self, whole: Tensor) -> Shard:
        """Copy the rows held here from the whole tensor."""
        self.rows.copy_(whole[self.first : self.first + len(self.rows)])
        return self


def write_together(
    path: Path, tensors: Mapping[str, Tensor | Shard], meta: Mapping[str, str], processes: ProcessGroup
) -> bytes:
    """Write one safetensors file: the first process writes whole tensors, each process the rows that it
    holds.

    All processes make this call with tensors of the same names and shapes, and must see the same folder. It
    returns when all have written.

    Args:
        path: The file; replaced where it exists.
        tensors: Tensors by name.
        meta: Texts of the header; those of the first process are written.
        processes: The processes.

    Returns:
        The header, which precedes the tensors.

    Raises:
        OSError: A process could not write; raised on all processes.
    """
    head, places = _layout(tensors, meta)
    path, start = Path(processes.agree(str(path))), processes.agree(len(head))

    def make() -> None:
        if processes.leads:
            with path.open("wb") as file:
                file.write(head)
                file.truncate(start + sum(tensor.nbytes for tensor in tensors.values()))

    def fill() -> None:
        with path.open("r+b") as file:
            for name, tensor in tensors.items():
                if isinstance(tensor, Shard):
                    file.seek(start + places[name] + tensor.first * (tensor.nbytes // max(tensor.total, 1)))
                    _write_rows(file, tensor.rows)
                elif processes.leads:
                    file.seek(start + places[name])
                    _write_rows(file, tensor)
            file.flush()
            os.fsync(file.fileno())

    _on_all(processes, make)
    _on_all(processes, fill)
    return head


def _on_all(processes: ProcessGroup, work: Callable[[], None]) -> None:
    """Do the work on every process; if it fails on one, fail on all."""
    trouble: OSError | None = None
    try:
        work()
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
        part = flat[low : low + step].cpu().contiguous()
        file.write(part.view(torch.uint8).numpy().data)
