"""The macro graph, and the engine that builds it."""

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
    """The Spark cluster, if the graph is built on one."""

    master: str = "local[*]"
    """`local[n]` for n cores of this machine, `spark://host:port`, `yarn`, or `k8s://https://host:port`."""
    options: dict[str, str] = {}
    """Options of Spark, such as `spark.executor.memory`. They are saved with the results, so secrets belong
    in the environment of Spark."""

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
    """How the ranks of several tasks on one pair merge: their sum, or the bit mask read as a number
    (POGCN)."""
    resolutions: Annotated[Literal["auto"] | list[tuple[int, int]], BeforeValidator(_resolutions)] = "auto"
    """Numbers of macro nodes (users, items), coarse to fine. `auto` takes 6/8, 12/20, 25/50, 100/100 and
    300/300, without those that the log is too small for."""
    dense: int = Field(default=1, ge=0)
    """Place of the resolution that the experts aggregate, which is stored dense; the last one if there are
    fewer."""
    rank: int = Field(default=128, ge=1)
    power_iterations: int = Field(default=4, ge=0)
    scale: float = Field(default=1.0, ge=0, le=2)
    """Power of the singular values in the sketch: 1 was best, 2 is the paper's similarity of rows of S
    S^T."""
    normalize: Literal["degree", "none"] = "degree"
    threshold: float = Field(default=0.25, ge=0, lt=1)
    """Quantile of a node's score sum below which it does not move its macro node's centre (eq. 8)."""
    low_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight of nodes below the threshold."""
    clusters: Literal["learned", "random"] = "learned"
    """`random` assigns nodes to the same number of random groups, for ablations."""
    refresh: bool = True
    """Whether every snapshot has new macro nodes, warm-started; otherwise all have those of the first."""
    recents: int = Field(default=20, ge=1)
    iterations: int = Field(default=20, ge=1)
    """Maximum number of iterations of k-means."""
    rounds: int = Field(default=20, ge=0)
    """Maximum number of refinement rounds after k-means, in which users and items move to the macro node that
    fits them best. They stop earlier when few nodes move."""
    sample: int = Field(default=200_000, ge=1)
    """Maximum number of users from which the sketch and the macro nodes are learned; all users are
    assigned."""
    snapshots: Literal["all", "last"] = "all"
    """`all`: one before every window, for training. `last`: one of the whole log, without examples, which
    only `mgoe graph build` makes."""
    memory: float = Field(default=4.0, ge=0.25, allow_inf_nan=False)
    """Limit of anonymous memory in GiB; the rest is spilled to disk."""
    engine: Literal["local", "spark"] = "local"
    """`local` builds in this process, `spark` on `spark.master`."""
    spark: SparkSettings = SparkSettings()
    seed: Seed = 0

    @model_validator(mode="after")
    def _dense_is_one(self) -> Self:
        if self.resolutions != "auto" and self.dense > (
            last := max(1, len(self.resolutions) - 1)
        ):  # 1 is also the default
            raise ValueError(
                f"dense must be the place of one of the resolutions, from 0, found {self.dense}; set {last} "
                "at most"
            )
        return self

    def dense_of(self, resolutions: int) -> int:
        """Return the place of the resolution that the experts aggregate, given the number of resolutions."""
        return min(self.dense, resolutions - 1)
