"""The macro graph, and where it is built."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mgoe.config.base import Seed, Settings


def _resolutions(value: object) -> object:
    pairs = value if isinstance(value, list | tuple) else []
    if value != "auto" and not (pairs and all(map(_is_pair, pairs))):
        rule = "must be `auto` or pairs of macro nodes (users, items), each at least 1"
        raise ValueError(f"{rule}, found {value}; write them as in [[12, 20], [100, 100]]")
    return value


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(size, int) and size >= 1 for size in value)
    )


class SparkSettings(Settings):
    """Where Spark runs, if the graph is built on it."""

    master: str = "local[*]"
    """`local[n]` for n cores of this machine, `spark://host:port`, `yarn`, or `k8s://https://host:port`."""
    options: dict[str, str] = {}
    """Spark's own, such as `spark.executor.memory`. They are saved with the results: leave secrets to the environment of Spark."""

    @model_validator(mode="before")
    @classmethod
    def _as_text(cls, raw: Any) -> Any:
        options = raw.get("options") if isinstance(raw, dict) else None
        if not isinstance(options, dict):
            return raw
        text = {
            key: str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in options.items()
        }
        return raw | {"options": text}


class GraphSettings(Settings):
    """The macro task merging graph."""

    beta: float = Field(default=0.0, ge=0, le=1)
    """Curvature of the merging score (eq. 6)."""
    code: Literal["sum", "bits"] = "sum"
    """How the ranks of several tasks on one pair merge: their sum, or the bit mask read as a number (POGCN)."""
    resolutions: Annotated[Literal["auto"] | list[tuple[int, int]], BeforeValidator(_resolutions)] = "auto"
    """Macro nodes (users, items), coarse to fine. `auto` takes 6/8, 12/20, 25/50, 100/100, 300/300, less what the log is too small for."""
    dense: int = Field(default=1, ge=0)
    """Which resolution the experts aggregate; stored dense. The last one where there are fewer."""
    rank: int = Field(default=128, ge=1)
    power_iterations: int = Field(default=4, ge=0)
    scale: float = Field(default=1.0, ge=0, le=2)
    """Power of the singular values on the sketch: 1 did best, 2 is the paper's similarity of rows of S S^T."""
    normalize: Literal["degree", "none"] = "degree"
    threshold: float = Field(default=0.25, ge=0, lt=1)
    """Quantile of a node's score sum below which it does not move its macro node's centre (eq. 8)."""
    low_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight of nodes below the threshold."""
    clusters: Literal["learned", "random"] = "learned"
    """`random` deals nodes into as many groups by lot, for ablations."""
    refresh: bool = True
    """New macro nodes at every snapshot, warm-started; else those of the first."""
    recents: int = Field(default=20, ge=1)
    iterations: int = Field(default=20, ge=1)
    """Of k-means."""
    rounds: int = Field(default=20, ge=0)
    """After k-means, users and items move in turn to the macro node that ties them best: at most so many times,
    fewer where few still move."""
    sample: int = Field(default=200_000, ge=1)
    """Users that the sketch and the macro nodes are learned from at most; all of them are assigned."""
    snapshots: Literal["all", "last"] = "all"
    """`all`: one before every window, which training reads. `last`: one of the whole log, without examples: `mgoe graph build` alone."""
    memory: float = Field(default=4.0, ge=0.25, allow_inf_nan=False)
    """Limit of anonymous memory, GiB; what exceeds it is spilled to disk."""
    engine: Literal["local", "spark"] = "local"
    """`local` builds in this process; `spark` where `spark.master` says."""
    spark: SparkSettings = SparkSettings()
    seed: Seed = 0

    @model_validator(mode="after")
    def _dense_is_one(self) -> Self:
        if self.resolutions != "auto" and self.dense > (
            last := max(1, len(self.resolutions) - 1)
        ):  # 1 is also what nobody has set
            raise ValueError(
                f"dense must be the place of one of the resolutions, from 0, found {self.dense}; ask for {last} at most"
            )
        return self

    def dense_of(self, resolutions: int) -> int:
        """Which of so many resolutions the experts aggregate."""
        return min(self.dense, resolutions - 1)
