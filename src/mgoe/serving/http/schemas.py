"""What a client sends and gets: these models check requests and describe answers.

An answer has one list per column: 500 rows as objects would take ten times as long to write as to score.

A list is refused at its first wrong entry, and an object with too many names before its values are checked:
pydantic would make one error per entry, which took 25 s for the million entries of a 2 MiB body.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Json,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from mgoe.bundle.ids import EXACT, OneMessage, Text
from mgoe.bundle.ids import GivenId as Id
from mgoe.bundle.request import Count, RankingRequest
from mgoe.data.erasures import ERASED
from mgoe.features.macro_nodes import MacroNode

OUTCOMES = ("accepted", "refused", ERASED)
"""What may become of a record that is sent."""
NAMES = 64
"""Names of an object, at most."""


@dataclass(frozen=True)
class AtMost:
    """An annotation of a dictionary: its names are counted before its values are checked.

    Attributes:
        names: How many it may have.
    """

    names: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check first for any values, then for the right ones."""
        few = core_schema.dict_schema(
            core_schema.str_schema(), core_schema.any_schema(), max_length=self.names
        )
        return core_schema.chain_schema([few, handler(source)])

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe the right values."""
        return handler(schema["steps"][-1]) | {"maxProperties": self.names}  # pyright: ignore[reportGeneralTypeIssues, reportTypedDictNotRequiredAccess]


Value = StrictStr | StrictInt | StrictFloat | StrictBool
SomeValue = Annotated[
    Value | Annotated[list[Value | None], Field(fail_fast=True)],
    OneMessage("must be a text, a number, true, false, null, or a list of these"),
]
Context = Annotated[dict[str, SomeValue | None], AtMost(NAMES)]


def inherited(name: str) -> Any:
    """Return the default, the description and the rules of a part of a ranking request."""
    return RankingRequest.model_fields[name]


class Request(BaseModel, extra="forbid", allow_inf_nan=False):
    """Strict about names and types."""


class LimitedRequest(RankingRequest):
    """A request for a ranking with values as JSON has them, of a limited size."""

    context: Context = inherited("context")
    k: Annotated[StrictInt, Field(le=10_000)] = inherited("k")
    objective: Annotated[StrictStr | None, Field(max_length=500)] = inherited("objective")
    exclude: Annotated[list[Id], Field(max_length=10_000, fail_fast=True)] = inherited("exclude")
    at_least: Annotated[dict[str, float], AtMost(NAMES)] = inherited("at_least")
    where: Annotated[dict[str, SomeValue], AtMost(NAMES)] = inherited("where")
    max_per: Annotated[dict[str, Count], AtMost(NAMES)] = inherited("max_per")
    exact: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleVariableOverride] - it may take long


class RecommendRequest(
    LimitedRequest,
    json_schema_extra={
        "examples": [
            {"user": 42, "k": 10, "exclude_known": True},
            {"events": [{"item": 7, "behavior": "click"}], "k": 10},
        ]
    },
):
    """Whom to recommend to: a user, or a visitor of whom a session is known."""

    user: Id | None = Field(default=None, description="An id; leave it out with events, or without users.")
    events: list[dict[str, Any]] | None = Field(
        default=None,
        fail_fast=True,
        description="What a visitor without an id has done, in any order: objects with item, behavior and, "
        "optionally, time (now by default). They are stored nowhere.",
    )
    unit: Text | None = None
    """What keeps its arm in an experiment whose unit is `request`: a session, a device."""
    arm: Text | None = None
    """The arm of the service's experiment that answers, whatever the unit's is."""


class RankRequest(
    RecommendRequest,
    json_schema_extra={
        "examples": [
            {"user": 42, "candidates": [7, 8, 9], "objective": "click * buy^2", "k": 2},
            {"user": 42, "k": 10, "exclude_known": True, "at_least": {"click": 0.01}},
            {"events": [{"item": 7, "behavior": "click"}], "candidates": [8, 9]},
        ]
    },
):
    """Whom to rank for, and what."""

    candidates: Annotated[list[Id], Field(min_length=1, fail_fast=True)] | None = Field(
        default=None,
        description="Items to rank; recommends from the catalogue if left out. A repeated one counts once.",
    )


class ScoreRequest(
    Request,
    json_schema_extra={
        "examples": [{"users": [42], "items": [7, 8, 9]}, {"users": [42, 43], "items": [7, 8]}]
    },
):
    """Pairs to score."""

    users: list[Id] = Field(min_length=1, fail_fast=True, description="One per pair, or one for all.")
    items: list[Id] = Field(min_length=1, fail_fast=True, description="One per pair.")
    context: Context = inherited("context")


class EventsRequest(
    Request,
    json_schema_extra={
        "examples": [
            {
                "events": [
                    {
                        "id": "7f3a",
                        "user": 42,
                        "item": 7,
                        "behavior": "click",
                        "time": "2026-05-01T12:00:00Z",
                    }
                ]
            },
            {
                "exposures": [{"request": "r1", "user": 42, "item": 7, "position": 0}],
                "labels": [{"request": "r1", "item": 7, "labels": {"click": 1}}],
            },
        ]
    },
):
    """Events, or exposures and their labels, in any order. Each is checked for itself, so that a wrong one
    does not hold up the others."""

    events: list[dict[str, Any]] = Field(
        default=[],
        fail_fast=True,
        description="Objects with user, item, behavior and, optionally, time (ISO 8601, or a number since "
        "1970; now by default) and id (a retry with the same id counts once).",
    )
    exposures: list[dict[str, Any]] = Field(
        default=[],
        fail_fast=True,
        description="Of a bundle of an exposure log: objects with user, item and, optionally, time, request "
        "(its id; with the item it makes a retry harmless), position (from 0), propensity and context.",
    )
    labels: list[dict[str, Any]] = Field(
        default=[],
        fail_fast=True,
        description="What became of exposures: objects with request or user, with item, labels (a value by "
        "task) and, optionally, time, when they became known; now by default.",
    )


class ItemsRequest(
    Request,
    json_schema_extra={
        "examples": [
            {"items": [{"item": 7, "features": {"color": "red", "price": 9.5}, "name": "Red shoe"}]},
            {"items": [{"item": 7, "withdrawn": True}]},
        ]
    },
):
    """Items to register or to withdraw. Each is checked for itself."""

    items: list[dict[str, Any]] = Field(
        min_length=1,
        fail_fast=True,
        description="Objects with item and, optionally, features (values by name, as in the side table of "
        "items), name, and withdrawn (true: never recommend it again). A retry is harmless; an item that is "
        "registered again with other features is refused.",
    )


class NamesRequest(Request, json_schema_extra={"examples": [{"users": [42], "items": [7, 8]}]}):
    """Users and items to name."""

    users: list[Id] = Field(default=[], fail_fast=True)
    items: list[Id] = Field(default=[], fail_fast=True)


class ExplainRequest(Request):
    """What to explain, as a query has it."""

    user: Text = Field(description="A user's id.", examples=["42"])
    item: Text | None = Field(
        default=None, description="An item's id; without it, what is known of the user.", examples=["7"]
    )
    context: Annotated[Json[Context], WithJsonSchema({"type": "string"})] = Field(
        default_factory=dict, description="Context features as a JSON object.", examples=["{}"]
    )


class MacroRequest(Request):
    """How many macro nodes to show."""

    limit: int = Field(default=50, ge=1, le=500, description="Macro nodes of each side, the heaviest.")


def outcomes(errors: Sequence[str | None]) -> dict[str, Any]:
    """Return an `EventsAnswer`, of what is wrong with each record; None if nothing is, `ERASED` if it is of a
    user who was erased since."""
    said = ["accepted" if error is None else ERASED if error == ERASED else "refused" for error in errors]
    return {
        **{outcome: said.count(outcome) for outcome in OUTCOMES},
        "outcomes": [
            {"outcome": outcome, "error": error if outcome == "refused" else None}
            for outcome, error in zip(said, errors, strict=True)
        ],
    }


def exact(value: Any) -> Any:
    """Return an answer with its large whole numbers as strings; arrays, which hold scores, stay."""
    if isinstance(value, dict):
        return {name: exact(one) for name, one in value.items()}
    if isinstance(value, list):
        return [exact(one) for one in value]
    return str(value) if isinstance(value, int) and abs(value) > EXACT else value


AsOf = Annotated[
    AwareDatetime,
    Field(
        description="When the request came, in UTC: events that the worker knew by then are read, and ages "
        "count from the newest of them."
    ),
]


class RecommendAnswer(BaseModel):
    """The best items first, one list per column."""

    user: Id | None
    items: list[Id]
    scores: list[float] = Field(
        description="What orders the list: values of the objective, of retrieved items after the blend "
        "with links."
    )
    tasks: dict[str, list[float]] = Field(description="Probability (or value) of each task.")
    objective: str
    ranked: int = Field(description="Items that were scored; 0 if the filters leave none.")
    exact: bool = Field(
        description="Whether these were all items that the request allows; otherwise they were retrieved."
    )
    unseen_user: bool
    as_of: AsOf
    bundle: str
    experiment: str = Field(default="", description="Of a service with one, while it runs.")
    arm: str = Field(default="", description="The arm of the unit, if it has one.")
    propensities: list[float] = Field(default=[], description="Of each item given those above it.")


class RankAnswer(RecommendAnswer):
    """The best candidates first, one list per column."""

    repeated: int = Field(description="Candidates given more than once.")
    unseen_items: int = Field(description="Candidates never seen, which are scored as nodes without history.")


class ScoreAnswer(BaseModel):
    """One entry per pair, in the order given."""

    tasks: dict[str, list[float]]
    unseen_users: int
    unseen_items: int
    as_of: AsOf
    bundle: str


class Outcome(BaseModel):
    """What became of a record."""

    outcome: str = Field(
        description="`accepted`: durable, and counted once however often it is sent; `refused`: see `error`; "
        "`erased`: left out, since its user was erased after its time."
    )
    error: str | None = None


class EventsAnswer(BaseModel):
    """Outcomes in the order given: of events, then of exposures, then of labels; or of items."""

    accepted: int
    refused: int
    erased: int
    outcomes: list[Outcome]


class Problem(
    BaseModel,
    json_schema_extra={
        "examples": [
            {"error": "'bu' is not a task; did you mean 'buy'?", "place": "objective", "position": 8}
        ]
    },
):
    """Every answer that is not 200."""

    error: str = Field(description="One sentence: the rule, what was found, the fix.")
    place: str = Field(description="Where: a field of the request, or the server.")
    position: int | None = Field(default=None, description="The character of an objective at fault, from 0.")


class Edge(BaseModel):
    """An edge to a macro node, in units of the merging score."""

    node: int
    score: float


class Recent(BaseModel):
    """A recent neighbour and the tasks done."""

    id: Id | None
    tasks: list[str]
    weight: float | None = Field(default=None, description="In the score, if the model weighs neighbours.")


class Recents(BaseModel):
    """Recent neighbours, newest first."""

    items: list[Recent] = Field(description="Items of the user.")
    users: list[Recent] = Field(description="Users of the item.")


class Weighed(BaseModel):
    """A macro node's part in an aggregate."""

    node: int
    weight: float
    edge: float


class Explanation(BaseModel):
    """What carried a score; without an item, what is known of the user."""

    user: Id
    item: Id | None
    user_macro: int = Field(
        description="Macro node of the user; the one after the last stands for cold start."
    )
    item_macro: int | None
    tasks: dict[str, float] | None = Field(description="Probability (or value) of each task.")
    gates: dict[str, dict[str, float]] | None = Field(
        default=None, description="Weight of each expert for each task, if the model has gates."
    )
    macro: dict[str, list[Weighed]] | None = Field(
        default=None,
        description="The heaviest macro nodes by aggregate: u1 and u2 of the user, i1 and i2 of the item.",
    )
    user_edges: list[Edge] = Field(description="1st-order edges of the user to item macro nodes.")
    item_edges: list[Edge] | None = Field(description="1st-order edges of the item to user macro nodes.")
    recents: Recents
    live: dict[str, Any] | None = Field(
        default=None, description="What live events changed of the user and of the item."
    )
    bundle: str


class About(BaseModel):
    """What a client should know of the bundle."""

    model: str
    tasks: list[str] = Field(description="Weakest to strongest.")
    kinds: dict[str, str] = Field(description="`binary` (a probability) or `regression` (a value), by task.")
    objective: str = Field(description="What a ranking is by if the request names no objective.")
    named: list[str] = Field(description="`users`, `items`: what people have names for, see `/v1/names`.")
    behaviors: list[str] = Field(description="What an event may be.")
    item_features: list[str] = Field(description="What `where` and `max_per` may name.")
    context: list[str]
    users: int
    items: int
    macro_users: int
    macro_items: int
    busiest_users: list[Id] = Field(description="None without the scope `admin`.")
    bundle: str


class MacroNodes(BaseModel):
    """All macro nodes, by number."""

    users: list[MacroNode]
    items: list[MacroNode]
    bundle: str


class Macro(MacroNodes):
    """The heaviest macro nodes, and what is between each macro user (row) and each macro item (column)."""

    edges: list[list[float]] = Field(description="Scores.")
    lift: list[list[float]] = Field(description="Scores over those that the size of both lets expect.")


class Names(BaseModel):
    """What people call users and items, in the order given; null where the bundle holds no name."""

    users: list[str | None]
    items: list[str | None]
    bundle: str


class Health(BaseModel):
    """Whether the service answers; to a token with the scope `admin` also with which bundle, and what is
    wrong."""

    status: str
    bundle: str | None = None
    detail: str | None = None
