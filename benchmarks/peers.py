"""Others' training loops, each over the same examples: a data loader over rows with dense Adam,
torch-rechub's MMoE, DeepCTR-Torch's MMoE.

A peer's model has the width and the layers of ours (two experts of 128-64, a linear gate a task, towers of
64-32) and reads user and item by rows of 32; its loader, loop and Adam are its own. In the peers' favour: no
weight decay and no penalty on embeddings, which are passes over all rows that their defaults make at each
step, and no metric while training. torch-rechub's layers have a batch normalisation each."""

import importlib.util
import io
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mgoe.data import Examples
from mgoe.models import RankingModel

WIDTH = 32
"""Of a user's or an item's row."""
EXPERT, TOWER = (128, 64), (64, 32)
PACKAGES = {
    "torch_rechub": "torch-rechub",
    "deepctr_torch": "deepctr-torch",
    "tqdm": "tqdm",
    "requests": "requests",
}
"""The peers and what they need besides what we do, by the module that it is imported as."""


@dataclass(frozen=True)
class Epoch:
    """A model, and a loop that trains it.

    Attributes:
        model: Whose parameters move.
        run: Train on every example once; returns the seconds.
    """

    model: nn.Module
    run: Callable[[], float]


class Rows(Dataset[dict[str, Tensor]]):
    """Inputs by row, as a data loader wants them."""

    def __init__(self, inputs: dict[str, Tensor]):
        self.inputs = inputs

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: values[row] for name, values in self.inputs.items()}

    def __len__(self) -> int:
        return len(self.inputs["labels"])


def require_peers() -> None:
    """Stop with the command that brings what is missing."""
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        bring = (
            f"`pip install -e '.[bench]'`, or `pip install --no-deps {' '.join(missing)}`, which keeps torch"
        )
        raise SystemExit(
            f"peers: need {', '.join(missing)}, found no such package; {bring}, or leave the peers out with "
            "--no-peers"
        )


def rowwise_dense_adam(model: RankingModel, inputs: dict[str, Tensor], batch_size: int) -> Epoch:
    """The same model as most loops would train it: examples collated row by row, gradients and Adam over
    whole tables, float32.

    Args:
        model: Its tables are made dense.
        inputs: What it reads of every example, gathered before; N rows each.
        batch_size: Rows a step.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = False
    loader, optimizer = (
        DataLoader(Rows(inputs), batch_size, shuffle=True),
        torch.optim.Adam(model.parameters()),
    )

    def run() -> float:
        started = time.perf_counter()
        for batch in loader:
            optimizer.zero_grad()
            loss, _ = model.loss(batch)
            loss.backward()
            optimizer.step()
        return time.perf_counter() - started

    return Epoch(model.train(), run)


def torch_rechub(examples: Examples, users: int, items: int, batch_size: int) -> Epoch:
    """torch-rechub's MMoE under its own loader and trainer.

    Args:
        examples: N rows; labels are there.
        users, items: Rows of the tables.
        batch_size: Rows a step.
    """
    features = _module("torch_rechub.basic.features")
    columns = [features.SparseFeature(name, rows, WIDTH) for name, rows in (("user", users), ("item", items))]
    tasks = ["classification"] * examples.labels.shape[1]
    tower, expert = {"dims": [*TOWER]}, {"dims": [*EXPERT]}
    model = _module("torch_rechub.models.multi_task").MMOE(
        columns, tasks, len(tasks), expert, [tower] * len(tasks)
    )
    trainer = _module("torch_rechub.trainers").MTLTrainer(model, tasks, optimizer_params={"lr": 1e-3})
    inputs, none = (
        {"user": examples.user, "item": examples.item},
        {"user": examples.user[:0], "item": examples.item[:0]},
    )
    generator = _module("torch_rechub.utils.data").DataGenerator(inputs, examples.labels)
    unused = {"x_val": none, "y_val": examples.labels[:0], "x_test": none, "y_test": examples.labels[:0]}
    loader = generator.generate_dataloader(**unused, batch_size=batch_size)[0]
    return Epoch(model, lambda: _quiet(lambda: trainer.train_one_epoch(loader)))


def deepctr_torch(examples: Examples, users: int, items: int, batch_size: int) -> Epoch:
    """DeepCTR-Torch's MMoE under its own `fit`. Arguments as above."""
    _keep_offline()
    inputs = _module("deepctr_torch.inputs")
    columns = [
        inputs.SparseFeat(name, rows, embedding_dim=WIDTH)
        for name, rows in (("user", users), ("item", items))
    ]
    tasks = [f"task{t}" for t in range(examples.labels.shape[1])]
    model = _module("deepctr_torch.models.multitask").MMOE(
        columns,
        num_experts=len(tasks),
        expert_dnn_hidden_units=EXPERT,
        gate_dnn_hidden_units=(),
        tower_dnn_hidden_units=TOWER,
        l2_reg_embedding=0,
        task_types=["binary"] * len(tasks),
        task_names=tasks,
    )
    model.compile("adam", loss=["binary_crossentropy"] * len(tasks))
    read = {"user": examples.user, "item": examples.item}
    return Epoch(
        model,
        lambda: _quiet(
            lambda: model.fit(dict(read), examples.labels, batch_size=batch_size, epochs=1, verbose=0)
        ),
    )


def _keep_offline() -> None:
    """Import DeepCTR-Torch, which starts a thread that asks the network for a newer one, and let the thread
    find no network.
    """
    before = set(threading.enumerate())
    with mock.patch("requests.get", side_effect=OSError), redirect_stdout(io.StringIO()):
        _module("deepctr_torch")
        for thread in set(threading.enumerate()) - before:
            thread.join()


def parameters(model: nn.Module) -> int:
    """Numbers that training moves."""
    return sum(parameter.numel() for parameter in model.parameters())


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _quiet(run: Callable[[], object]) -> float:
    """Seconds of a run, whose printing goes nowhere."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
