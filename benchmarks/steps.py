"""Our training apart: whole epochs, feeding alone, the stages of a step, and the floor under it."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.prepared import Made
from mgoe.config import ModelSettings, TrainingSettings
from mgoe.data import ExampleFile, Examples
from mgoe.graph import MacroGraph
from mgoe.models import FeatureSpec, RankingModel, make_model
from mgoe.training import Batch, Feed, ProcessGroup, make_spec, uses_bfloat16
from mgoe.training.step import LossCheck, Stepper

CPU = torch.device("cpu")
STEPS = 1_000_000
"""Of the schedule: so many that rates stay as they are."""
STAGES = ("forward", "backward", "optimizer")
FLOOR = {"mm", "addmm", "bmm", "baddbmm", "embedding"}
"""Operators of the floor."""
EDGES = {"u1": "user", "u2": "user", "i1": "item", "i2": "item"}
"""Whose rows the macro edges are."""


@dataclass
class Training:
    """A model, and what it trains on.

    Attributes:
        made: Examples and graphs.
        graph: Which of the graphs.
        settings: Of the model.
        batch_size: Rows a step.
        batches: Steps of an epoch.
    """

    made: Made
    graph: str
    settings: ModelSettings
    batch_size: int
    batches: int

    @property
    def needs(self) -> frozenset[str]:
        """Groups that the model reads."""
        return frozenset(self.settings.inputs or ())

    @property
    def source(self) -> MacroGraph:
        """The graph itself."""
        return self.made.graphs[self.graph]

    @cached_property
    def spec(self) -> FeatureSpec:
        """What models are made for."""
        return make_spec(self.made.prepared, self.source, self.needs)

    @cached_property
    def examples(self) -> Examples:
        """Those of an epoch, drawn from all, in memory."""
        whole = self.made.prepared.examples("train")
        return whole.take(np.random.default_rng(0).permutation(len(whole))[: self.batches * self.batch_size])

    @cached_property
    def stepper(self) -> Stepper:
        """Of a fresh model, with the defaults of a fit."""
        settings = TrainingSettings(batch_size=self.batch_size)
        return Stepper(
            self.model().train(), settings, STEPS, uses_bfloat16(settings.precision, CPU), ProcessGroup()
        )

    def model(self) -> RankingModel:
        """A fresh model."""
        return make_model(self.settings, self.spec, 0)

    def feed(self, examples: Examples | ExampleFile | None = None) -> Feed:
        """Of the given examples; those of an epoch by default."""
        return Feed(
            self.made.prepared,
            self.source,
            self.examples if examples is None else examples,
            self.needs,
            self.spec,
        )

    def fed(self, examples: Examples | ExampleFile | None = None) -> Iterator[Batch]:
        """Shuffled batches of them."""
        return self.feed(examples).batches(self.batch_size, shuffle_seed=0)

    def epoch(self) -> float:
        """Seconds to train on every example of an epoch once."""
        return self._train(self.fed())

    def feeding(self, examples: Examples | ExampleFile | None = None) -> float:
        """Seconds to feed examples without a step."""
        return seconds(lambda: [None for _ in self.fed(examples)])

    def stages(self, batches: int) -> dict[str, float]:
        """Seconds of each of `STAGES` over so many steps, the batches ready before."""
        ready = [
            {name: values.clone() for name, values in batch.items()} for batch in islice(self.fed(), batches)
        ]
        marks: list[float] = []
        hook = self.stepper.optimizers[0].register_step_pre_hook(lambda *_: marks.append(time.perf_counter()))
        self._train(ready[:2])
        marks.clear()
        starts = [time.perf_counter()]
        for batch in ready:
            self._train([batch], lambda *_: marks.append(time.perf_counter()))
            starts.append(time.perf_counter())
        hook.remove()
        start, end = np.array(starts[:-1]), np.array(starts[1:])
        forward, backward = np.array(marks).reshape(-1, 2).T
        return dict(
            zip(
                STAGES,
                map(float, ((forward - start).sum(), (backward - forward).sum(), (end - backward).sum())),
                strict=True,
            )
        )

    def floor(self, batches: int) -> float:
        """Seconds of so many steps' `FLOOR` operators, forward and backward, and of copying their macro
        edges, all else left out.
        """
        calls = self.floor_calls()
        node = {"user": self.examples.user[: self.batch_size], "item": self.examples.item[: self.batch_size]}
        edges = [(np.asarray(self.source.latest.arrays[name]), node[side]) for name, side in EDGES.items()]

        def step() -> None:
            for operator, arguments in calls:
                operator(*arguments)
            for array, rows in edges:
                array.take(rows, axis=0)

        with torch.inference_mode():
            step()
            return seconds(lambda: [step() for _ in range(batches)])

    def floor_calls(self) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
        """The `FLOOR` operators of one step, with their arguments."""
        batch = next(self.fed())
        with _Recorder() as recorded:
            self._train([batch])
        return recorded.calls

    def _train(self, batches: Iterable[Batch], check: Callable[..., None] = lambda *_: None) -> float:
        names = [task.name for task in self.spec.tasks]
        finite = LossCheck(self.stepper.model, names, epoch=1, batches=sys.maxsize)

        def checked(*what: Any) -> None:
            finite(*what)
            check(*what)

        return seconds(lambda: [self.stepper(batch, number, checked) for number, batch in enumerate(batches)])


class _Recorder(TorchDispatchMode):
    """Notes the operators of the floor that run inside, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__ in FLOOR and not kwargs:
            self.calls.append(
                (func, tuple(part.detach() if isinstance(part, Tensor) else part for part in args))
            )
        return func(*args, **(kwargs or {}))


def seconds(run: Callable[[], object]) -> float:
    """How long a run takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
