"""Embedding tables whose rows TorchRec spreads over the processes, for tables that one process cannot hold.

A sharded table is called like an `nn.Embedding`. Indices travel to the process that holds their rows, rows
travel back, and gradients take the same way; that process updates its rows in the backward pass, by row-wise
Adagrad as in `RowwiseAdagrad`. From outside it is a table of fewer rows without a gradient: a `state_dict`
holds it as a `Shard`, and whole tensors are loaded into it.
"""

import importlib
import logging
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from mgoe._util.extras import load
from mgoe._util.memory import available_memory
from mgoe.config import TrainingSettings
from mgoe.errors import TrainingError
from mgoe.models import draw_rows
from mgoe.models.layers.inputs import Category
from mgoe.training.checkpoint import Shard
from mgoe.training.distributed.process_group import ProcessGroup

EPS = 1e-8
"""As in `RowwiseAdagrad`."""
SMALL = 0.01
"""Share of all tables' bytes below which a table stays whole: sharding it would save little and cost
messages."""
ONE = "rows"
"""Name of the one table, and of the one feature, of a module of TorchRec."""


class ShardedTable(nn.Embedding):
    """A table of which this process holds a range of rows, in the order of rank.

    All processes must call it equally often, and several of them in the same order.

    Args:
        table: The whole table, which is not kept, or a late table.
        processes: The processes.
        device: Device of the rows.
        seed: Seed of the rows of a late table.
    """

    def __init__(
        self, table: nn.Embedding, processes: ProcessGroup, device: torch.device, seed: tuple[int, ...]
    ):
        rows, width = table.weight.shape
        super().__init__(rows, width, sparse=True, device="meta")
        self._rec = torchrec()
        spread = _spread(self._rec, rows, width, processes, device)
        self._spread = (spread,)  # not a submodule, so that its parameters have no second name
        (weight,) = spread.state_dict().values()
        ((accumulator,),) = (
            state.values() for state in spread.fused_optimizer.state_dict()["state"].values()
        )
        self.first = processes.rank * _rows_per_process(rows, processes)
        self.weight = nn.Parameter(weight.local_shards()[0].tensor, requires_grad=False)
        self.accumulator = self._shard(accumulator.local_shards()[0].tensor)
        if table.weight.is_meta:
            draw_rows(self.weight.detach(), self.first, rows, seed)
        else:
            self._shard(self.weight).take(table.weight.detach())
        self.group: dict[str, Any] = {}
        """Parameter group of the optimiser that sets the learning rate."""

    def forward(self, input: Tensor) -> Tensor:
        """Look up at least one index, (...) -> (..., D)."""
        (spread,) = self._spread
        if self.group:
            for group in spread.fused_optimizer.param_groups:
                group["lr"] = self.group["lr"]
            spread.fused_optimizer.zero_grad()  # which passes the rate on
        learns = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(learns):  # FBGEMM knows no inference mode
            codes, places = input.unique(return_inverse=True)
            lengths = torch.ones_like(codes)
            asked = self._rec.sparse.jagged_tensor.KeyedJaggedTensor([ONE], codes, lengths=lengths)
            rows = spread(asked)[ONE].values()
        return F.embedding(places, rows)

    def _shard(self, rows: Tensor) -> Shard:
        return Shard(rows.detach(), self.first, self.num_embeddings)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self._shard(self.weight)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self._shard(self.weight).take(state_dict[f"{prefix}weight"])


class OpenedTable(nn.Embedding):
    """A table over a tensor in a memory-mapped file: pages are read when their rows are."""

    def __init__(self, rows: int, width: int):
        super().__init__(rows, width, sparse=True, device="meta")

    def forward(self, input: Tensor) -> Tensor:
        """(...) -> (..., D), on the device of the indices."""
        return super().forward(input.to(self.weight.device)).to(input.device)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self.weight = nn.Parameter(state_dict[f"{prefix}weight"])


def place_tables(
    model: nn.Module, settings: TrainingSettings, processes: ProcessGroup, device: torch.device, seed: int
) -> None:
    """Shard a model's tables over the processes if `training.tables` says so, and draw late tables.

    Tables of features with several categories per row, and relatively small tables, stay whole on every
    process.

    Args:
        model: Freshly made, the same on every process.
        settings: Settings of training.
        processes: The processes; with a single one, tables stay whole.
        device: Device of the model.
        seed: Seed of late tables; the values do not depend on the number of processes.

    Raises:
        MissingExtra: TorchRec is needed and cannot be imported.
        TrainingError: TorchRec does not support the width of rows.
    """
    tables = [place for place in _tables(model) if place[2].sparse]
    whole = sum(table.weight.nbytes for _, _, table in tables)
    spread = whole > 0 and processes.size > 1 and settings.tables != "replicated"
    if spread and settings.tables == "auto":
        # Half of the free memory of a process is for gradients and batches.
        spread = processes.any(2 * whole > free_memory(device))[0]
    if spread:
        torchrec()  # raises where it is missing
    for number, (parent, name, table) in enumerate(tables):
        if spread and table.weight.nbytes >= SMALL * whole and _spreads(parent, table, processes):
            if table.embedding_dim % 4:
                raise TrainingError(
                    "training.tables",
                    f"rows of sharded tables must be a multiple of 4 wide, found {table.embedding_dim} in "
                    f"{name!r}; change the model's width, or use replicated",
                )
            setattr(parent, name, ShardedTable(table, processes, device, (seed, number)))
        elif table.weight.is_meta:
            table.to_empty(device=device)
            draw_rows(table.weight.detach(), 0, table.num_embeddings, (seed, number))


def connect_optimizers(model: nn.Module, optimizers: list[Optimizer]) -> None:
    """Give sharded tables the learning rate of their optimiser, and save their accumulators with its
    state."""
    groups = {
        id(p): (optimizer, group)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for _, _, table in _tables(model):
        if isinstance(table, ShardedTable):
            optimizer, table.group = groups[id(table.weight)]
            optimizer.state[table.weight]["accumulator"] = table.accumulator


def unshard(model: nn.Module) -> None:
    """Replace sharded tables by whole ones, into which weights are loaded next.

    Processes do not wait for each other.
    """
    for parent, name, table in list(_tables(model)):
        if isinstance(table, ShardedTable):
            setattr(parent, name, OpenedTable(table.num_embeddings, table.embedding_dim))


@cache
def torchrec() -> Any:
    """Return the library.

    Raises:
        MissingExtra: It cannot be imported.
    """
    # Its warning does not concern users.
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    library = load(
        "torchrec",
        "training.tables",
        "sharded tables need TorchRec, which",
        "`make distributed`, or use replicated",
    )
    # Losses are shares of the whole, so gradients are added up, not averaged.
    library.distributed.comm_ops.set_gradient_division(False)
    return library


def _spread(rec: Any, rows: int, width: int, processes: ProcessGroup, device: torch.device) -> Any:
    """Return TorchRec's module of one table, sharded by ranges of rows."""
    table = rec.modules.embedding_configs.EmbeddingConfig(
        name=ONE, num_embeddings=rows, embedding_dim=width, feature_names=[ONE]
    )
    whole = rec.modules.embedding_modules.EmbeddingCollection(tables=[table], device=torch.device("meta"))
    kinds = importlib.import_module("fbgemm_gpu.split_embedding_configs").EmbOptimType
    sharder = rec.distributed.embedding.EmbeddingCollectionSharder(
        fused_params={"optimizer": kinds.EXACT_ROWWISE_ADAGRAD, "eps": EPS}
    )
    planning = rec.distributed.sharding_plan
    plan = planning.construct_module_sharding_plan(
        whole,
        {ONE: planning.row_wise(compute_kernel="fused")},
        sharder=sharder,
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", processes.size)),
        world_size=processes.size,
        device_type=device.type,
    )
    assert dist.group.WORLD is not None
    with torch.random.fork_rng([]):  # it draws rows that are then replaced
        group = rec.distributed.types.ShardingEnv.from_process_group(dist.group.WORLD)
        return sharder.shard(whole, plan, group, device)


def _tables(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Embedding]]:
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Embedding):
                yield parent, name, child


def _spreads(parent: nn.Module, table: nn.Embedding, processes: ProcessGroup) -> bool:
    """Return whether a table only looks rows up, and has rows for every process."""
    return (
        type(table) is nn.Embedding
        and table.padding_idx is None
        and table.max_norm is None
        and not (isinstance(parent, Category) and parent.multi)
        and (processes.size - 1) * _rows_per_process(table.num_embeddings, processes) < table.num_embeddings
    )


def _rows_per_process(rows: int, processes: ProcessGroup) -> int:
    """Return the number of rows of each process but the last."""
    return -(-rows // processes.size)


def free_memory(device: torch.device) -> int:
    """Return the bytes that a process may still take if all processes on this machine take as much."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
