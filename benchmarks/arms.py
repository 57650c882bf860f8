"""The arms of the closed loop: services, whose bundle stays, learns every morning or explores, and rules.

A morning is the midnight at which a day of the world begins. What a bundle learns is what its service has
taken and no longer waits for: the exposures up to `WINDOW` before.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from scipy.special import expit, logit

from mgoe import experiments
from mgoe._util.files import atomic_file, write_text
from mgoe.bundle import MANIFEST, Bundle
from mgoe.bundle.exploration import Exploration, explored
from mgoe.bundle.ranking import Query, Ranked, rank_users, wanted
from mgoe.bundle.request import RankingRequest
from mgoe.config.assignment import arm_of
from mgoe.config.experiment import ExperimentSettings, ExploreSettings
from mgoe.lifecycle import Sources, update
from mgoe.lifecycle.taken import export
from mgoe.serving.http.client import client
from mgoe.serving.http.settings import ServeSettings
from mgoe.simulation import Truth, Visits, VisitSettings, WorldSettings, simulate
from mgoe.simulation.loop import JOURNAL, OUTCOMES, Service, Shown
from mgoe.simulation.truth import looks, position_losses
from mgoe.simulation.visits import Page, Report

OBJECTIVE = "click"
"""What services rank by. The best reachable list is by the same."""
WINDOW = "12h"
"""How long a service waits for labels. After twelve half-lives nearly all of them have come."""
SOFT = 2.0
"""Temperature of the arms that draw every place, in standard deviations of a user's values. Then bundles that
disagree a little still show lists that the others could show."""
DRAWS = 20
"""Lists of a bundle that tell what it would earn for a page."""
INTERLEAVED = 0.5
"""Share of the users whose lists both arms make together in the design `interleaved`; the others are in an
A/B test of the same two arms."""


@dataclass(frozen=True)
class Arm:
    """A policy.

    Attributes:
        name: Of its figures.
        model: The library's name of the model; None for a rule.
        learns: What its bundle learns every morning: nothing, new rows from its weights, or all rows anew.
        explores: Whether it draws every place.
    """

    name: str
    model: str | None = None
    learns: Literal["", "continue", "new"] = ""
    explores: bool = False


ARMS = {
    arm.name: arm
    for arm in (
        Arm("mmoe", "mmoe"),
        Arm("shared-bottom", "shared-bottom+mgoe"),
        Arm("frozen", "mgoe"),
        Arm("updated", "mgoe", "continue"),
        Arm("retrained", "mgoe", "new"),
        Arm("popularity"),
        Arm("best"),
    )
}
EXPLORING = (
    Arm("frozen-soft", "mgoe", explores=True),
    Arm("shared-bottom-soft", "shared-bottom+mgoe", explores=True),
    Arm("mmoe-soft", "mmoe", explores=True),
    Arm("frozen", "mgoe"),
)
"""The arms of the design `explored`: the first one serves, and all are estimated."""


@cache
def ranked_users(bundle: Path) -> list[Ranked]:
    """Return the whole catalogue as a bundle ranks it for each of its users, by its own objective."""
    opened = Bundle.open(bundle)
    query = Query.read(opened, RankingRequest(k=1), opened.objective, np.empty(0, np.int64))
    query = replace(query, k=wanted(opened, query, opened.n_items))
    return list(rank_users(opened, opened, range(-1, opened.size("user")), query))


def how_of(arm: Arm, bundle: Path) -> ExploreSettings | None:
    """Return how an arm explores with a bundle."""
    if not arm.explores:
        return None
    return ExploreSettings(
        temperature=SOFT * float(np.mean([one.values.std() for one in ranked_users(bundle)]))
    )


def worth(world: "World", shown: Mapping[str, NDArray], days: range, arm: Arm) -> dict[str, float]:
    """Return the clicks that an arm's lists would get on the first page of each session, by its request.

    Args:
        world: The world.
        shown: Items of each page that was shown, as indices: users remember these.
        days: Of the pages.
        arm: Makes lists as `mgoe experiment estimate` does: from its bundle's snapshot, without context.
    """
    visits, truth = world.visits(), world.truth
    path = world.trained(str(arm.model))
    bundle, ranked, how = Bundle.open(path), ranked_users(path), how_of(arm, path)
    known = bundle.indices("user", truth.user_ids.of(np.arange(len(truth.users))).astype(str).tolist())
    items = truth.item_ids.index(np.array(bundle.ids("item", np.arange(bundle.n_items)), np.int64))
    nothing, found = np.empty(0, np.int64), dict[str, float]()
    for day in days:
        visits.open(day)
        while (page := visits.next_page()) is not None:
            visits.due(page.time)
            if page.number == 0:
                one, clicks = ranked[known[page.user] + 1], 0.0
                own = items[one.items]
                odds = logit(visits.click_chances(page, own))
                held = np.empty((len(own), 0), np.int64)
                for draw in range(DRAWS if how else 1):
                    rows = np.arange(min(len(own), truth.settings.positions))
                    if how:
                        seed = Exploration(how, len(found) * DRAWS + draw)
                        rows, _ = explored(one.values, held, nothing, len(rows), seed)
                    places = np.arange(len(rows))
                    chance = expit(odds[rows] - position_losses(truth)[places]) * looks(truth)[places]
                    clicks += float(chance @ np.isin(own[rows], visits.alive(day)))
                found[page.request] = clicks / (DRAWS if how else 1)
            visits.show(page, shown.get(page.request, nothing))
    return found


@dataclass(frozen=True)
class World:
    """A world, its log before the loop, and the days of the loop.

    Attributes:
        name: Of its figures.
        folder: Of everything that is made of it.
        given: `log`, `loop`, `world` and `visits` of `loop.yaml`.
    """

    name: str
    folder: Path
    given: dict[str, Any]

    @property
    def first(self) -> int:
        """The first day of the loop."""
        return self.given["log"]

    @cached_property
    def truth(self) -> Truth:
        """Draw the world once, and write its log."""
        days = self.first + self.given["loop"]
        settings, folder = WorldSettings(**self.given["world"], days=days), self.folder / "drawn"
        if not self.log.exists():
            simulate(settings, folder, form="exposures", overwrite=True)
            end = settings.start + timedelta(days=self.first)
            rows = f"FROM read_parquet('{folder}/exposures/*.parquet') WHERE timestamp < '{end}'"
            with atomic_file(self.log) as file:
                duckdb.execute(f"COPY ({rows}) TO '{file}' (FORMAT parquet)")
        return Truth.open(folder)

    @property
    def log(self) -> Path:
        """The log before the loop; a model that reads it cannot see what follows."""
        return self.folder / "log.parquet"

    def visits(self) -> Visits:
        """Return the users of the world, on the morning of the first day of the loop."""
        return Visits(self.truth, VisitSettings(**self.given["visits"]))

    @property
    def features(self) -> list[str]:
        """What services know of items."""
        return [] if self.truth.settings.content is None else ["content"]

    def settings(self, model: str, logs: Sequence[Path], day: int) -> dict[str, Any]:
        """Return the settings of a training on a morning. Rules choose how to train from the log."""
        data: dict[str, Any] = {
            "log": [str(log) for log in logs],
            "form": "exposures",
            "user": "user_id",
            "item": "item_id",
            "time": "timestamp",
            "position": "position",
            "context": [{"name": "device"}],
        }
        if self.features:
            features = [{"name": "content", "kind": "vector"}]
            data["items"] = {"path": str(self._items(day)), "id": "item_id", "features": features}
        names = [name for name in self.truth.settings.names if name != "buy"]
        tasks: list[dict[str, Any]] = [{"name": name, "label": name} for name in names]
        tasks += [
            {"name": "buy", "label": "buy", "given": "click"},
            {"name": "stay", "label": "stay", "kind": "regression", "given": "click"},
        ]
        auto = {"batch_size": "auto", "learning_rate": "auto", "epochs": "auto", "refit": "continue"}
        return {
            "data": data,
            "tasks": tasks,
            "models": [model],
            "training": auto,
            "evaluation": {"ranking_queries": 0, "slices": False},
            "retrieval": "exact",
        }

    def _items(self, day: int) -> Path:
        """Write the side table of the items that have arrived before a day."""
        path, own = self.folder / f"items-{day}.parquet", self.truth.items.arrival < day
        table = pq.read_table(self.folder / "drawn" / "items.parquet")
        known = self.truth.item_ids.of(np.flatnonzero(own)).tolist()
        with atomic_file(path) as file:
            pq.write_table(table.filter(pa.array(np.isin(table["item_id"].to_numpy(), known))), file)
        return path

    def trained(self, model: str) -> Path:
        """Return the bundle of a model, trained once on the log before the loop."""
        folder = self.folder / "models" / model
        if not (folder / "bundle" / MANIFEST).exists():
            run(self.settings(model, [self.log], self.first), folder)
        return folder / "bundle"


def run(settings: Mapping[str, Any], folder: Path) -> None:
    """Train, or resume an interrupted training."""
    config = folder.with_name(f"{folder.name}.yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    write_text(config, yaml.safe_dump(settings))
    experiments.run(config, folder, show_progress=False)


class Served:
    """A policy of services: one bundle for all users, or an experiment whose arms have a bundle each.

    Every morning the service is closed, bundles learn, and it opens with what they have become. A bundle of a
    day is made once, so a day that was interrupted resumes with the same.

    Args:
        world: The world.
        arms: One, or the arms of an experiment, of which the first is the control.
        folder: Gets the state of the service and its bundles.
        days: Of the loop.
        visits: Users of the world.
        design: In `own` a bundle learns from its own users' rows only; in `interleaved` some users get lists
            that both arms make; in `explored` pages are ranked by the bundle's own objective, which is what
            `mgoe experiment estimate` takes.

    Attributes:
        day: The last one that has begun.
    """

    def __init__(
        self,
        world: World,
        arms: Sequence[Arm],
        folder: Path,
        days: range,
        visits: Visits,
        design: str = "alone",
    ):
        if arms[0].explores:  # an experiment has two arms at least, so the two are alike
            arms = [arms[0], replace(arms[0], name=f"{arms[0].name}-too")]
        self._world, self._arms, self._folder, self.days = world, arms, folder, days
        self._visits, self._design, self._opened = visits, design, AsyncExitStack()
        journal = folder / JOURNAL
        *lines, _ = journal.read_text().split("\n") if journal.exists() else [""]  # the last may be cut off
        begun = [json.loads(line)["begins"] for line in lines if line.startswith('{"begins"')]
        self.day = max(begun, default=days.start)
        self._service: Service | None = None

    async def show(self, page: Page, visits: Visits) -> Shown:
        """Let the service of the day make a page."""
        return await (await self._of(page.day)).show(page, visits)

    async def tell(self, reports: Sequence[Report], time: int) -> None:
        """Send what has become known to the service."""
        await (await self._of(self.day)).tell(reports, time)

    async def change(self, items: Sequence[dict[str, Any]], time: int) -> None:
        """Send items that arrive or go."""
        await (await self._of(self.day)).change(items, time)

    async def close(self) -> None:
        """Close the service."""
        await self._opened.aclose()
        self._opened, self._service = AsyncExitStack(), None

    async def _of(self, day: int) -> Service:
        """Return the service of a day, which its first page opens."""
        if self._service is not None and day == self.day:
            return self._service
        await self.close()
        self.day, bundles = day, [self.bundle(arm, day) for arm in self._arms]
        settings = {
            "bundle": bundles[0], "state": self.state, "window": WINDOW, "runtime": {"engine": "torch"},
            "access_log": False, "port": 0, "limits": {"seconds": 3600},  # a busy machine changes nothing
        }  # fmt: skip
        if len(bundles) > 1:
            self._write_experiment(bundles)
            settings["experiment"] = [self._folder / "experiment.yaml"]
        connect = partial(client, ServeSettings(**settings))
        service = Service(connect, self._visits, None if self._design == "explored" else OBJECTIVE)
        self._service = await self._opened.enter_async_context(service)
        return self._service

    @property
    def state(self) -> Path:
        """Folder of what the service has taken."""
        return self._folder / "state"

    @property
    def experiment(self) -> ExperimentSettings:
        """The experiment, without the bundles of its arms."""
        arms = [
            {
                "name": arm.name,
                "share": 1 / len(self._arms),
                "explore": how_of(arm, self._world.trained(str(arm.model))),
            }
            for arm in self._arms
        ]
        ends = [
            datetime.fromtimestamp(self._visits.start_of(day) / 1e6, UTC)
            for day in (self.days.start, self.days.stop)
        ]
        mixed = INTERLEAVED if self._design == "interleaved" else 0.0
        one = {"id": self._world.name, "arms": arms, "start": ends[0], "end": ends[1], "interleave": mixed}
        return ExperimentSettings.model_validate(one)

    def _write_experiment(self, bundles: Sequence[Path]) -> None:
        raw = self.experiment.model_dump(mode="json")
        for arm, bundle in zip(raw["arms"][1:], bundles[1:], strict=True):
            arm["bundle"] = str(bundle)
        write_text(self._folder / "experiment.yaml", yaml.safe_dump(raw))

    def bundle(self, arm: Arm, day: int) -> Path:
        """Return the bundle of an arm on a day, which it makes unless it is there."""
        assert arm.model is not None
        before = self._world.trained(arm.model)
        if not arm.learns or day == self.days.start:
            return before
        folder = self._folder / "bundles" / arm.name / f"day-{day:05}"
        made = folder / "run" / "bundle"
        if (made / MANIFEST).exists():
            return made
        folder.mkdir(parents=True, exist_ok=True)
        now, rows = self._visits.start_of(day), folder / "rows.parquet"
        if arm.learns == "new":
            export(before, self.state, rows, "exposures", now=now)
            self._keep_own(rows, arm)
            run(self._world.settings(arm.model, [self._world.log, rows], day), made.parent)
            return made
        former = self.bundle(arm, day - 1)
        sources = Sources(events=self.state)
        if self._design == "own":
            export(former, self.state, rows, "exposures", new=True, now=now)
            self._keep_own(rows, arm)
            sources = Sources(str(rows))
        update(former, sources, made, weights="continue", overwrite=True, now=now)
        return made

    def _keep_own(self, file: Path, arm: Arm) -> None:
        """Leave only the rows of users of an arm in a file, which still says what it holds."""
        if self._design != "own":
            return
        table, number = pq.read_table(file), self._arms.index(arm)
        users = table["user_id"].to_numpy()
        own = [user for user in np.unique(users) if arm_of(self.experiment, str(user)) == number]
        with atomic_file(file) as new:
            pq.write_table(table.filter(pa.array(np.isin(users, own))), new)


class Rule:
    """A policy that ranks items by values, without a service.

    Args:
        world: The world.
        folder: Of its days.
        name: `popularity` ranks by the clicks up to the morning, `best` by the true chance of a click.
    """

    def __init__(self, world: World, folder: Path, name: str):
        self._world, self._folder, self._name = world, folder, name
        self._day, self._clicks = -1, np.zeros(0)

    async def show(self, page: Page, visits: Visits) -> Shown:
        """Show the best of the items that are there and that the session has not shown."""
        ids, items = visits.truth.item_ids, visits.alive(page.day)
        items = items[~np.isin(items, ids.index(visits.seen(page)))]
        if self._name == "best":
            values = visits.click_chances(page, items)
        else:
            values = self._clicks_until(page.day)[items]
        best = np.argsort(-values, kind="stable")[: visits.truth.settings.positions]
        return Shown(ids.of(items[best]).tolist(), bundle=self._name)

    async def tell(self, reports: Sequence[Report], time: int) -> None:
        """Learn nothing between mornings."""

    async def change(self, items: Sequence[dict[str, Any]], time: int) -> None:
        """Items that are there are known from the world."""

    async def close(self) -> None:
        """Nothing is open."""

    def _clicks_until(self, day: int) -> NDArray[np.float64]:
        """Return the clicks on each item, of the log and of the days before. Shape (I,)."""
        if day != self._day:
            past = self._folder / OUTCOMES
            files = [past / f"day-{one:05}.parquet" for one in range(self._world.first, day)]
            paths = [str(file) for file in (self._world.log, *files)]
            query = (
                f"SELECT item_id, sum(click) AS n FROM read_parquet({paths}, union_by_name = true) GROUP BY 1"
            )
            found = duckdb.execute(query).fetchnumpy()
            ids = self._world.truth.item_ids
            self._clicks = np.zeros(len(self._world.truth.items))
            self._clicks[ids.index(np.asarray(found["item_id"]))] = found["n"]
            self._day = day
        return self._clicks


def policy_of(
    world: World, arms: Sequence[Arm], folder: Path, days: range, visits: Visits, design: str
) -> Served | Rule:
    """Return the policy of an arm, or of an experiment with several."""
    if arms[0].model is None:
        return Rule(world, folder, arms[0].name)
    return Served(world, arms, folder, days, visits, design)
