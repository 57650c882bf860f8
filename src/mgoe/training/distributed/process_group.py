"""The processes that train one model together, each on its share of every batch. Alone, nothing here costs anything."""

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
import torch.distributed.nn  # while there is no group: imported later, as optimizers do, its default arguments keep the group for ever
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from mgoe.errors import MgoeError, SaidElsewhere, TrainingError

Value = TypeVar("Value")
PATIENCE = timedelta(days=7)
"""The others wait while the first process prepares the log; `torchrun` ends them where one fails."""
FAILED = "mgoe/failed"
"""Counts the processes that failed with a message, where all of them can see it."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process and the others.

    Attributes:
        rank: Of this one, from 0; the first writes files.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> ProcessGroup:
        """The group that this process has joined; alone where it has joined none."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def check_batch(self, rows: int) -> None:
        """See that every process has an equal part of a batch.

        Raises:
            TrainingError: It has not.
        """
        if rows % self.size:
            rule = f"must be a multiple of the {self.size} processes, found {rows}"
            raise TrainingError(
                "training.batch_size", f"{rule}; change it or start another number of processes"
            )

    def share(self, rows: int) -> slice:
        """This process' part of so many rows in order; the parts follow each other and differ by one row at most."""
        return slice(self.rank * rows // self.size, (self.rank + 1) * rows // self.size)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        with _meeting():
            dist.all_reduce(flat)
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(summed.view_as(tensor))

    def sum_sparse_(self, tables: Iterable[torch.nn.Parameter]) -> None:
        """Replace each table's gradient by its sum over all processes; rows that none has touched stay out."""
        for table in tables if self.size > 1 else ():
            if not table.requires_grad:  # its rows are spread over the processes, and were moved by them
                continue
            gradient = table.grad
            if gradient is None:
                none = torch.empty((1, 0), dtype=torch.int64, device=table.device)
                gradient = torch.sparse_coo_tensor(none, table.new_empty((0, *table.shape[1:])), table.shape)
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
        """Rows of all processes, in the order of rank, on each of them."""
        if self.size == 1:
            return rows
        mine = torch.from_numpy(np.ascontiguousarray(rows)).to(_meeting_place())
        return np.concatenate([part.cpu().numpy() for part in self._gather(mine)])

    def agree(self, value: Value) -> Value:
        """The first process' value, on all of them; anything JSON holds."""
        if self.size == 1:
            return value
        place = _meeting_place()
        said = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=place)
        length = torch.tensor([len(said)], device=place)
        with _meeting():
            dist.broadcast(length, src=0)
            said = said if self.leads else said.new_empty(int(length))
            dist.broadcast(said, src=0)
        return json.loads(bytes(said.tolist()))

    def any(self, *mine: bool) -> list[bool]:
        """Of each of some questions, whether it is so on any process."""
        if self.size == 1:
            return list(mine)
        found = torch.tensor(mine, dtype=torch.float32, device=_meeting_place())
        with _meeting():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return [bool(answer) for answer in found.tolist()]

    def _gather(self, mine: Tensor) -> list[Tensor]:
        """Tensors of all processes, which may differ in their number of rows."""
        rows = torch.tensor([len(mine)], device=mine.device)
        counts = [torch.empty_like(rows) for _ in range(self.size)]
        with _meeting():
            dist.all_gather(counts, rows)
        most = max(int(count) for count in counts)
        padded = mine.new_zeros((most, *mine.shape[1:]))
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with _meeting():
            dist.all_gather(parts, padded)
        return [part[: int(count)] for part, count in zip(parts, counts, strict=True)]


ALONE = ProcessGroup()
"""The group of a process that trains alone."""


def _meeting_place() -> torch.device:
    """Where tensors must be that the processes exchange."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if dist.get_backend() == "nccl"
        else torch.device("cpu")
    )


@contextmanager
def _meeting() -> Iterator[None]:
    """An exchange, which cannot end once another process is gone."""
    try:
        yield
    except RuntimeError as error:
        rule = "every process must stay to the end, one is gone"
        raise TrainingError(
            "torchrun", f"{rule} ({' '.join(str(error).split())[:200]}); see why and start all again"
        ) from error


@contextmanager
def joined(device: str = "auto") -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, until the block ends; alone where it did not start this one.

    Args:
        device: `training.device`. NCCL connects GPUs, one a process; gloo everything else.

    Raises:
        TrainingError: The others cannot be reached.
        SaidElsewhere: The block failed, and another process did so before.
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
            "torchrun", f"the processes cannot meet ({error}); start them with `torchrun -m mgoe train ...`"
        ) from None
    try:
        yield ProcessGroup.current()
        with _meeting():
            dist.barrier()  # a process that leaves early takes its connections along, which others may still read
    except MgoeError as error:
        if _is_first_to_fail(store):
            raise
        raise SaidElsewhere(error.place, error.message) from None
    finally:
        dist.destroy_process_group()


def _is_first_to_fail(store: Store) -> bool:
    """Whether no other process has a message; also where that cannot be asked any more."""
    try:
        return store.add(FAILED, 1) == 1
    except RuntimeError:
        return True
