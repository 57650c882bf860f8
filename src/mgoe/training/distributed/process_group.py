"""The processes that train one model together, each on its share of every batch.

A single process pays nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn  # before a group exists: otherwise its default arguments keep the group alive
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from mgoe.errors import MgoeError, ReportedByPeer, TrainingError

Value = TypeVar("Value")
PATIENCE = timedelta(days=7)
"""Processes wait while the first one prepares the log; `torchrun` ends them if one fails."""
FAILED = "mgoe/failed"
"""Key of a counter of failed processes, which all processes can read."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together.

    Attributes:
        rank: Number of this process, from 0; process 0 writes files.
        size: Number of processes.

    Example:
        >>> ProcessGroup.current().leads
        True
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> ProcessGroup:
        """Return the group that this process has joined, or a group of one."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def check_batch(self, rows: int, setting: str = "training.batch_size") -> None:
        """Check that every process has an equal part of a batch.

        Args:
            rows: Rows of the batch.
            setting: What set their number.

        Raises:
            TrainingError: The parts are not equal.
        """
        if rows % self.size:
            raise TrainingError(
                setting,
                f"must be a multiple of the {self.size} processes, found {rows}; change it or start another "
                "number of processes",
            )

    def share(self, rows: int) -> slice:
        """Return this process' part of `rows` rows; parts are consecutive and differ by at most one row."""
        return slice(self.rank * rows // self.size, (self.rank + 1) * rows // self.size)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        with _exchanging():
            dist.all_reduce(flat)
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(summed.view_as(tensor))

    def sum_sparse_(self, tables: Iterable[torch.nn.Parameter]) -> None:
        """Replace each table's gradient by its sum over all processes; rows without a gradient stay out."""
        for table in tables if self.size > 1 else ():
            if not table.requires_grad:  # a sharded table, which was updated in the backward pass
                continue
            gradient = table.grad
            if gradient is None:
                gradient = torch.sparse_coo_tensor(
                    torch.empty((1, 0), dtype=torch.int64, device=table.device),
                    table.new_empty((0, *table.shape[1:])),
                    table.shape,
                )
            if not gradient.is_sparse:
                self.sum_([gradient])
                continue
            gradient = gradient.coalesce()
            rows = torch.cat(self._gather(gradient.indices()[0]))
            values = torch.cat(self._gather(gradient.values().float()))
            table.grad = (
                torch.sparse_coo_tensor(rows[None], values.to(table.dtype), table.shape)
                if len(rows)
                else None
            )

    def join(self, rows: NDArray) -> NDArray:
        """Return the rows of all processes, in the order of rank, on each process."""
        if self.size == 1:
            return rows
        mine = torch.from_numpy(np.ascontiguousarray(rows)).to(_exchange_device())
        return np.concatenate([part.cpu().numpy() for part in self._gather(mine)])

    def agree(self, value: Value) -> Value:
        """Return the first process' value on all processes; anything that JSON holds."""
        if self.size == 1:
            return value
        place = _exchange_device()
        said = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=place)
        length = torch.tensor([len(said)], device=place)
        with _exchanging():
            dist.broadcast(length, src=0)
            said = said if self.leads else said.new_empty(int(length))
            dist.broadcast(said, src=0)
        return json.loads(bytes(said.tolist()))

    def any(self, *mine: bool) -> list[bool]:
        """Return for each flag whether it is set on any process."""
        if self.size == 1:
            return list(mine)
        found = torch.tensor(mine, dtype=torch.float32, device=_exchange_device())
        with _exchanging():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return [bool(answer) for answer in found.tolist()]

    def _gather(self, mine: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, which may differ in their number of rows."""
        rows = torch.tensor([len(mine)], device=mine.device)
        counts = [torch.empty_like(rows) for _ in range(self.size)]
        with _exchanging():
            dist.all_gather(counts, rows)
        padded = mine.new_zeros((max(int(count) for count in counts), *mine.shape[1:]))
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with _exchanging():
            dist.all_gather(parts, padded)
        return [part[: int(count)] for part, count in zip(parts, counts, strict=True)]


ALONE = ProcessGroup()
"""The group of a process that trains alone."""


def _exchange_device() -> torch.device:
    """Return the device of tensors that processes exchange."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if dist.get_backend() == "nccl"
        else torch.device("cpu")
    )


@contextmanager
def _exchanging() -> Iterator[None]:
    """Exchange tensors; raise if another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "torchrun",
            f"every process must stay to the end, one is gone ({' '.join(str(error).split())[:200]}); "
            "find out why and start all of them again",
        ) from error


@contextmanager
def joined(device: str = "auto") -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, until the block ends; without `torchrun`, yield a group of
    one.

    Args:
        device: `training.device`. NCCL connects GPUs, one per process; gloo connects everything else.

    Raises:
        TrainingError: The other processes cannot be reached.
        ReportedByPeer: The block failed after another process had failed.

    Example:
        >>> with joined() as processes:
        ...     processes.size
        1
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield ProcessGroup.current()
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    try:
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE
        )
    except (ValueError, RuntimeError) as error:
        raise TrainingError(
            "torchrun", f"the processes cannot meet ({error}); start them with `torchrun -m mgoe ...`"
        ) from None
    try:
        yield ProcessGroup.current()
        with _exchanging():
            dist.barrier()  # others may still read from the connections of a process that leaves early
    except MgoeError as error:
        if _is_first_to_fail(store):
            raise
        raise ReportedByPeer(error.place, error.message) from None
    finally:
        dist.destroy_process_group()


def _is_first_to_fail(store: Store) -> bool:
    """Return whether no other process failed before, also if that cannot be found out any more."""
    try:
        return store.add(FAILED, 1) == 1
    except RuntimeError:
        return True
