"""Exposures and labels from outside: which item a user was shown, and what became of it, checked as they
come in."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from mgoe.bundle import Bundle
from mgoe.bundle.ids import checked_id, shown
from mgoe.bundle.items import FEATURES
from mgoe.bundle.values import LARGEST, check_fields, is_number, read_features
from mgoe.config import FeatureSettings, TaskSettings, did_you_mean
from mgoe.data.columns import POSITIONS
from mgoe.data.waiting import longest_delay
from mgoe.errors import EventError
from mgoe.graph.pair_rows import SIDES
from mgoe.serving.events.event import EventReader

EXPOSURE = ("user", "item", "time", "request", "position", "propensity", "context")
LABEL = ("user", "item", "request", "time", "labels")


class Exposure(NamedTuple):
    """An item that a user was shown.

    Ids are texts: 7 and "7" are one id, whatever the bundle.

    Attributes:
        request: Identifies the exposure together with the item: the request's id after an `r`; for an
            exposure without one, the moment and the user after an `m`.
        user, item: Ids.
        time: Microseconds since 1970, UTC.
        position: Where the item was shown, from 0; None if it is unknown.
        propensity: Probability with which it was shown there; None if it is unknown.
        context: Context features as JSON: texts, numbers, or lists of texts; None if there are none.
    """

    request: str
    user: str
    item: str
    time: int
    position: int | None = None
    propensity: float | None = None
    context: str | None = None


class Label(NamedTuple):
    """What became of an exposure, for one task.

    Attributes:
        request: As of its exposure; empty if the label names the user instead.
        user: Id of the user; empty if the label names the request.
        item: Id of the item.
        task: Name of the task.
        time: Microseconds since 1970, UTC, when the label became known; None for the moment it is taken.
        value: 0 or 1, or the value of a regression.
    """

    request: str
    user: str
    item: str
    task: str
    time: int | None
    value: float


@dataclass(frozen=True)
class ExposureReader:
    """Checks exposures and labels from outside.

    Attributes:
        events: Reads ids and times.
        tasks: Tasks by name.
        context: Context features by name.
    """

    events: EventReader
    tasks: Mapping[str, TaskSettings]
    context: Mapping[str, FeatureSettings]

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Return a reader that reads exposures as the bundle's log was read."""
        return cls(
            EventReader.of(bundle),
            {task.name: task for task in bundle.settings.tasks},
            {feature.name: feature for feature in bundle.settings.data.context},
        )

    @cached_property
    def delay(self) -> int:
        """See `longest_delay`."""
        return longest_delay(self.tasks.values())

    def read_exposure(self, raw: Mapping[str, Any], now: int) -> Exposure:
        """Check one exposure.

        Args:
            raw: `user`, `item`, and optionally `time` (as of an event), `request`, `position`, `propensity`
                and `context`.
            now: Microseconds since 1970; the time of an exposure that has none.

        Raises:
            EventError: A field is missing, unknown, or breaks its rule.
        """
        check_fields(raw, EXPOSURE, "an exposure")
        user, item = (str(self.events.id_of(raw, node)) for node in SIDES)
        time = self.events.read_time(raw.get("time"), now)
        position, propensity = raw.get("position"), raw.get("propensity")
        if position is not None and not (is_number(position) and position in range(POSITIONS)):
            raise EventError(
                "position",
                f"must be a whole number, at least 0 and below {POSITIONS:,}, found {shown(position)}; "
                "or leave it out",
            )
        if propensity is not None and not (is_number(propensity) and 0 < propensity <= 1):
            raise EventError(
                "propensity",
                f"must be a probability above 0, at most 1, found {shown(propensity)}; or leave it out",
            )
        request = f"m{time}:{user}" if raw.get("request") is None else _request(raw["request"])
        return Exposure(
            request,
            user,
            item,
            time,
            None if position is None else int(position),
            None if propensity is None else float(propensity),
            self._context(raw.get("context")),
        )

    def read_labels(self, raw: Mapping[str, Any], now: int) -> list[Label]:
        """Check the labels of one exposure.

        Args:
            raw: `request` or `user`, `item`, `labels` (values by task) and optionally `time`, when they
                became known.
            now: Microseconds since 1970.

        Raises:
            EventError: A field is missing, unknown, or breaks its rule.
        """
        check_fields(raw, LABEL, "a label")
        request = "" if raw.get("request") is None else _request(raw["request"])
        if not request and self.events.nobody:
            raise EventError("request", "must be given, as the log has no users, found none; add it")
        # with a request's id the user need not be given, but must be one
        user = "" if request and raw.get("user") is None else str(self.events.id_of(raw, "user"))
        item, values = str(self.events.id_of(raw, "item")), raw.get("labels")
        time = None if raw.get("time") is None else self.events.read_time(raw["time"], now)
        if not isinstance(values, Mapping) or not values:
            raise EventError(
                "labels",
                f'must be values by task, as in {{"{next(iter(self.tasks))}": 1}}, found {shown(values)}',
            )
        return [
            Label(request, "" if request else user, item, task, time, self._value(task, value))
            for task, value in values.items()
        ]

    def _value(self, name: str, value: Any) -> float:
        task, place = self.tasks.get(name), f"labels.{name[:80]}"
        if task is None:
            near = did_you_mean(name, list(self.tasks))
            raise EventError(place, f"is no task{near}; the tasks are {', '.join(self.tasks)}")
        number = float(value) if is_number(value) or isinstance(value, bool) else math.nan
        if task.kind == "binary" and number not in (0.0, 1.0):
            raise EventError(place, f"must be 0 or 1, found {shown(value)}; leave an unknown label out")
        if not number >= 0:
            raise EventError(
                place,
                f"must be a number from 0 to {LARGEST:g}, found {shown(value)}; leave an unknown label out",
            )
        return number

    def _context(self, given: Any) -> str | None:
        if given is None:
            return None
        read = read_features(given, self.context, "context", "context feature")
        return json.dumps(read, ensure_ascii=False) if read else None


def read_context(contexts: Sequence[str | None], features: Sequence[FeatureSettings]) -> list[pa.Array]:
    """Return one array per context feature of contexts as JSON."""
    if not features:
        return []
    how = pj.ParseOptions(
        explicit_schema=pa.schema({feature.name: FEATURES[feature.kind] for feature in features}),
        unexpected_field_behavior="ignore",
    )
    lines = "\n".join(context or "{}" for context in contexts).encode()
    found = pj.read_json(io.BytesIO(lines), parse_options=how).combine_chunks()
    return [found[feature.name].combine_chunks() for feature in features]


def label_too_early(exposure: int) -> EventError:
    """Return the error of a label that was known before its exposure, at so many microseconds since 1970."""
    return EventError(
        "time",
        f"a label must not be known before its exposure, which was at {np.datetime64(exposure, 'us')}Z; "
        "fix the clock that wrote it, or leave the time out",
    )


def _request(value: Any) -> str:
    return f"r{checked_id(value, 'request')}"
