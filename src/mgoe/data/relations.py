"""How the columns of a log depend on each other: what is decided by what, and what comes before what."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

import ibis

from mgoe.data.columns import Expr, Table, only_row
from mgoe.data.times import read_time

TIME, HOUR = "moment of a row", "hour of a row"
"""Columns of a timed sample that no log has."""
MIN_CHANCES = 30
"""Rows that could contradict that one column decides another, below which nothing is concluded."""
SLIPS = 0.01
"""Share of these that may."""
CLEAR, AHEAD = 4.0, 0.05
"""Standard deviations, and share of the first rows, by which a value has to come first."""


@dataclass(frozen=True)
class Relations:
    """What pairs of columns have in common.

    Args:
        rows, values: Number of rows with a value, and of different values, of each column.
        pairs: Number of different pairs of values of two columns.
    """

    rows: Mapping[str, int]
    values: Mapping[str, int]
    pairs: Mapping[frozenset[str], int]

    @classmethod
    def of(cls, sample: Table, wanted: Iterable[tuple[str, str]]) -> "Relations":
        """Measure pairs of columns of a sample in one scan."""
        pairs = sorted({frozenset(pair) for pair in wanted if len({*pair}) == 2}, key=sorted)
        names = sorted({name for pair in pairs for name in pair})
        measures: dict[str, Expr] = {"count": sample.count()}
        for k, name in enumerate(names):
            measures |= {f"rows{k}": sample[name].count(), f"values{k}": sample[name].nunique()}
        for k, (a, b) in enumerate(map(sorted, pairs)):
            one, other = sample[a], sample[b]
            both = one.notnull() & other.notnull()
            together: Expr = ibis.struct({"a": one, "b": other})
            measures[f"pairs{k}"] = together.nunique(where=both)
        held = only_row(sample.aggregate(**measures))
        return cls(
            {name: held[f"rows{k}"] for k, name in enumerate(names)},
            {name: held[f"values{k}"] for k, name in enumerate(names)},
            {pair: held[f"pairs{k}"] for k, pair in enumerate(pairs)},
        )

    def decides(self, one: str, other: str) -> bool:
        """Return whether rows of one value of a column hold one value of the other, but for a few."""
        pair = frozenset((one, other))
        if pair not in self.pairs:
            return False
        chances = self.rows[one] - self.values[one]
        told = chances >= MIN_CHANCES and 2 * self.rows[other] >= self.rows[one]
        return told and self.pairs[pair] - self.values[one] <= SLIPS * chances

    def finer(self, one: str, other: str) -> bool:
        """Return whether one column decides the other, and has more values: an order has a user, an item a
        category."""
        return self.decides(one, other) and not self.decides(other, one)


def with_times(sample: Table, time: str, place: str) -> Table:
    """Return a sample with the columns `TIME`, in microseconds, and `HOUR`."""
    at = read_time(sample[time], time, "auto", place)
    return sample.mutate(**{TIME: at, HOUR: at // 3_600_000_000})


@dataclass(frozen=True)
class Order:
    """Which of two values comes first on the same user and item.

    If it said nothing, each row of a user and item would be as likely as another to be their first one. So
    `lead` compares how often it is of the first value with the share of its rows; counts alone would favour
    the commoner value.

    Args:
        before, after: Users and items on which the first value came before the second, and after it.
        lead: By how much more often it was first than its rows explain, as a sum over users and items.
        variance: Of `lead` where the order says nothing.
        both: Number of users and items with both.
    """

    before: int
    after: int
    lead: float
    variance: float
    both: int

    @property
    def clear(self) -> int:
        """1 if the first value comes first, -1 if the second does, 0 if neither clearly does."""
        if abs(self.lead) < CLEAR * sqrt(self.variance) or abs(self.lead) <= AHEAD * self.both:
            return 0
        return 1 if self.lead > 0 else -1


def orders(
    sample: Table, column: str, user: str, item: str
) -> tuple[dict[tuple[str, str], Order], dict[str, int]]:
    """Return, for two values of a column in either sequence, which one comes first on the same user and item;
    and on how many users and items each value occurs.

    Args:
        sample: A sample with the column `TIME`.
        column: A column of few values, which may be behaviours.
        user, item: Columns of the user and the item.
    """
    rows = sample.select(
        user=sample[user], item=sample[item], at=sample[TIME], value=sample[column].cast("string")
    )
    at_once = rows.drop_null().group_by(["user", "item", "value", "at"]).aggregate(n=ibis._.count())
    one: Table = at_once.group_by(["user", "item", "value"]).aggregate(
        rows=ibis._.n.sum(), at=ibis._.at.min(), first_rows=ibis._.n.argmin(ibis._.at)
    )
    two: Table = one.view()
    met: Table = one.join(two, [one.user == two.user, one.item == two.item, one.value != two.value]).select(
        value=one.value, other=two.value, before=one.at < two.at, after=one.at > two.at,
        share=one.rows / (one.rows + two.rows), rows_of_both=one.rows + two.rows,
        first_own=ibis.ifelse(one.at <= two.at, one.first_rows, 0),
        first_other=ibis.ifelse(two.at <= one.at, two.first_rows, 0),
    )  # fmt: skip
    first: Expr = met.first_own + met.first_other
    drawn: Expr = met.share * (1 - met.share) / first  # the variance of a share of rows drawn without return
    counted = met.group_by(["value", "other"]).aggregate(
        before=met.before.sum(),
        after=met.after.sum(),
        lead=(met.first_own / first - met.share).sum(),
        variance=(drawn * (met.rows_of_both - first) / (met.rows_of_both - 1)).sum(),
        both=met.count(),
    )
    found = counted.to_pyarrow().to_pylist()
    pairs = one.group_by("value").aggregate(n=ibis._.count()).to_pyarrow().to_pylist()
    orders_of = {(row.pop("value"), row.pop("other")): Order(**row) for row in found}
    return orders_of, {row["value"]: row["n"] for row in pairs}


def commoner_first(met: Mapping[tuple[str, str], Order], pairs: Mapping[str, int]) -> bool:
    """Return whether values of many users and items clearly come before those of fewer, as behaviours do and
    properties of a click do not; arguments as `orders` returns them."""
    falling = [order for (a, b), order in met.items() if (-pairs[a], a) < (-pairs[b], b)]
    sums = (sum(getattr(order, name) for order in falling) for name in Order.__dataclass_fields__)
    return Order(*sums).clear > 0


def from_weak_to_strong(found: Mapping[tuple[str, str], Order], counts: Mapping[str, int]) -> list[str]:
    """Return values in their order: a value comes before those that clearly follow it, and before rarer ones
    where nothing is clear."""

    def wins(value: str) -> int:
        others = ((found.get((value, other)), other) for other in counts if other != value)
        return sum(
            order.clear > 0 if order is not None and order.clear else counts[value] > counts[other]
            for order, other in others
        )

    return sorted(counts, key=lambda value: (-wins(value), -counts[value], value))
