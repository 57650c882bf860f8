"""The first result on a log that nobody has tuned for: how far from chosen settings is `mgoe init`?

    python benchmarks/strangers.py DATA --out runs/strangers [--only NAME ...] [--part fit|judge]
        [--stop-after MINUTES]

DATA holds `tmall.parquet` and `kuairand/exposures.parquet`; worlds are simulated. There are thirty samples:
fifteen kinds, each drawn once for fitting the rules and once, of other users or another world, for judging
them. On each, `mgoe init` writes a configuration, and its model is trained beside 24 settings of one seed:
batches of 256, 512, 1,024 and 4,096 rows, three learning rates, 4 or 8 epochs. Validation chooses one of
these, which then gets the seeds of the first result, three. All read the same test rows.

Where `init` leaves out a day that is another world, such as a sale, a model is also trained with that day as
test: with the cuts that the rules choose then, and with three cuts, which older versions fell back to.

Finished cells are kept, so the same command resumes. One line per figure:

- `strangers.NAME.first`: mean of AUC and GAUC on test, over seeds; `against` that of the chosen settings.
- `strangers.NAME.gap`: chosen minus first; `.low` and `.high`, its 95 % interval over users and seeds.
- `strangers.NAME.usual`: the same result with the default settings of training, whatever the log.
- `strangers.NAME.over_popularity`, `.over_history`: the lead of the first result over these, which learn
  nothing, with the upper end of its interval, `.high`.
- `strangers.NAME.odd_day`: the mean of AUC and GAUC on that day; `against` that with three cuts.
- `strangers.NAME.users`: of the test part, those that an interval can count on.
- `strangers.PART.gap`: mean over the finished samples of a part with 200 test users or more.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import duckdb
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import line
from mgoe import experiments
from mgoe._util.progress import shown
from mgoe.config import ComparisonSettings, TrainingSettings, check_settings
from mgoe.data import guess
from mgoe.evaluation import find_leads, group_users, read_rows
from mgoe.evaluation.influence import Influence
from mgoe.evaluation.rows import by_seed
from mgoe.simulation import Form, WorldSettings, simulate

PARTS = ("fit", "judge")
FIRST, USUAL = "mgoe", "usual"
REFERENCES = ("popularity", "history")
BATCHES, RATES, EPOCHS = (256, 512, 1024, 4096), (1e-3, 2e-3, 5e-3), (4, 8)
SEEDS = (0, 1, 2)
ENOUGH = 200
"""Test users from which a sample counts in the mean."""
RANKING = ("all", "ranking")


@dataclass(frozen=True)
class Sample:
    """A log that is drawn once for each part.

    Attributes:
        name: Of its kind.
        draw: Writes the log of a part, given the folder of the real logs and the file or folder to write.
    """

    name: str
    draw: Callable[[Path, Path, int], None]


def some_users(file: str, user: str, users: int, where: str, data: Path, out: Path, part: int) -> None:
    """Write all rows of some users of a real log; the parts have no user in common."""
    log = duckdb.read_parquet(str(data / file))
    ranked = (
        f"(SELECT DISTINCT {user} FROM log WHERE {user} % 2 = {part} ORDER BY hash({user}) LIMIT {users})"
    )
    chosen = duckdb.query(f"SELECT * FROM log WHERE {user} IN {ranked} AND {where}")
    out.mkdir(parents=True)
    chosen.write_parquet(str(out / "log.parquet"))
    del log


def world(
    form: Form, events: int | None, settings: Mapping[str, Any], data: Path, out: Path, part: int
) -> None:
    """Draw a log; the parts are worlds of different seeds."""
    made = WorldSettings(**settings, seed=1000 + part)
    simulate(made, out.with_name("world"), events=events, form=form)
    out.with_name("world").joinpath(form).rename(out)


def _tmall(users: int, where: str = "true") -> partial[None]:
    return partial(some_users, "tmall.parquet", "user_id", users, where)


def _kuairand(users: int) -> partial[None]:
    return partial(some_users, "kuairand/exposures.parquet", "user_id", users, "true")


def _events(events: int, **settings: int) -> partial[None]:
    return partial(world, "events", events, settings)


def _exposures(**settings: float) -> partial[None]:
    return partial(world, "exposures", None, settings)


BEFORE_THE_SALE = "timestamp < '2014-11-10'"
SAMPLES = [
    Sample("tmall-50", _tmall(50)),
    Sample("tmall-200", _tmall(200)),
    Sample("tmall-500", _tmall(500)),
    Sample("tmall-500-no-sale", _tmall(500, BEFORE_THE_SALE)),
    Sample("tmall-900", _tmall(900)),
    Sample("kuairand-150", _kuairand(150)),
    Sample("kuairand-500", _kuairand(500)),
    Sample("kuairand-3000", _kuairand(3000)),
    Sample("kuairand-12000", _kuairand(12_000)),
    Sample("events-small", _events(5_000, users=400, items=300, days=60)),
    Sample("events-dense", _events(20_000, users=800, items=300, days=30)),
    Sample("events-sparse", _events(20_000, users=20_000, items=8000, days=90)),
    Sample("exposures-two-days", _exposures(users=1500, items=600, days=2, exposures=20_000)),
    Sample("exposures-drift", _exposures(users=3000, items=1500, exposures=30_000, affinity_drift=0.8)),
    Sample("exposures-large", _exposures(users=15_000, items=5000, exposures=300_000)),
]


def comparison(folder: Path) -> ComparisonSettings:
    """Return the first result, the default training and the grid, as rows of one comparison."""
    training = TrainingSettings()
    usual = {"batch_size": training.batch_size, "learning_rate": training.learning_rate}
    grid = [
        {
            "name": f"{batch}-{rate:g}-{epochs}",
            "base": FIRST,
            "training": {"batch_size": batch, "learning_rate": rate, "epochs": epochs},
        }
        for batch, rate, epochs in product(BATCHES, RATES, EPOCHS)
    ]
    default = {"name": USUAL, "base": FIRST, "training": {**usual, "epochs": training.epochs}}
    raw = {
        "logs": {"log": {"run": str(folder / "first.yaml")}, **ways_to_cut(folder)},
        "models": [FIRST, default, *REFERENCES, *grid],
        "seeds": SEEDS,
        "evaluation": {"ranking_queries": 0, "slices": False},
        "serving_requests": 0,
    }
    return check_settings(ComparisonSettings, raw, "strangers")


def ways_to_cut(folder: Path) -> dict[str, dict[str, str]]:
    """Return the log with the odd day that `init` left out, cut in two ways; none if it left out none."""
    raw = yaml.safe_load((folder / "first.yaml").read_text())
    if "end" not in raw["data"]:
        return {}
    del raw["data"]["end"]
    ways = {"rules": "auto", "three-cuts": [0.4, 0.6, 0.8]}
    for name, cuts in ways.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(raw | {"split": {"cuts": cuts}}))
    return {name: {"run": str(folder / f"{name}.yaml")} for name in ways}


def ranking(cell: Path, split: str) -> float:
    """Return the mean of AUC and GAUC of a finished cell."""
    [values] = by_seed(read_rows(cell / "metrics.json"), split).values()
    [value] = values[RANKING].values()
    return value


def influences(folder: Path, model: str) -> dict[int, Influence]:
    return {
        seed: group_users(Influence.load(cell_of(folder, model, seed) / "influence.safetensors"))
        for seed in SEEDS
    }


def cell_of(folder: Path, model: str, seed: int, log: str = "log") -> Path:
    return folder / "results" / "logs" / log / "cells" / model / str(seed)


def measure(
    sample: Sample, part: str, data: Path, out: Path, until: float
) -> Iterator[tuple[str, float, float]]:
    """Draw a sample, configure, train, choose; yield name, value and what it is compared with."""
    folder = out / f"{sample.name}-{part}"
    if not (folder / "log").exists():
        folder.mkdir(parents=True, exist_ok=True)
        sample.draw(data, folder / "log", PARTS.index(part))
    config = folder / "first.yaml"
    if not config.exists():
        config.write_text(guess(str(folder / "log")))
    settings = comparison(folder)
    fixed = [FIRST, USUAL, *REFERENCES]
    grid = [name for name in settings.model_names if name not in fixed]

    def train(models: list[str], seeds: Sequence[int], logs: Sequence[str] = ("log",)) -> bool:
        with shown("stderr"):
            experiments.compare(
                settings, folder / "results", models=models, seeds=[*seeds], logs=[*logs],
                stop_after=max(0.0, until - time.monotonic()),
            )  # fmt: skip
        cells = [cell_of(folder, *cell) for cell in product(models, seeds, logs)]
        return all((cell / "metrics.json").exists() for cell in cells)

    if not train([*fixed, *grid], SEEDS[:1]):
        return
    chosen = max(grid, key=lambda model: ranking(cell_of(folder, model, SEEDS[0]), "valid"))
    if not train([*fixed, chosen], SEEDS):
        return
    by_model = {model: influences(folder, model) for model in (*fixed, chosen)}
    all_leads = find_leads(FIRST, by_model[FIRST], {name: by_model[name] for name in (chosen, *REFERENCES)})
    leads = {lead.baseline: lead for lead in all_leads if (lead.task, lead.metric) == RANKING}
    mean = {
        model: fmean(ranking(cell_of(folder, model, seed), "test") for seed in SEEDS) for model in by_model
    }
    print(f"{folder.name}: chose {chosen}", file=sys.stderr)
    yield "first", mean[FIRST], mean[chosen]
    yield "usual", mean[USUAL], mean[chosen]
    of_chosen = leads[chosen]
    yield "gap", -of_chosen.value, math.nan
    yield "gap.low", -of_chosen.high, math.nan
    yield "gap.high", -of_chosen.low, math.nan
    for name in REFERENCES:
        yield f"over_{name}", leads[name].value, math.nan
        yield f"over_{name}.high", leads[name].high, math.nan
    yield "users", len(by_model[FIRST][SEEDS[0]].users), math.nan
    _, *ways = settings.logs
    if ways and train([FIRST], SEEDS, ways):
        rules, three = (
            fmean(ranking(cell_of(folder, FIRST, seed, way), "test") for seed in SEEDS) for way in ways
        )
        yield "odd_day", rules, three


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    asked = _parser().parse_args(arguments)
    until = time.monotonic() + asked.stop_after * 60
    for part in [asked.part] if asked.part else PARTS:
        gaps = []
        for sample in SAMPLES:
            if asked.only and sample.name not in asked.only:
                continue
            found = {}
            for name, value, against in measure(sample, part, asked.data, asked.out, until):
                found[name] = value
                line(f"strangers.{sample.name}-{part}.{name}", value, "1", against)
            if found.get("users", 0) >= ENOUGH:
                gaps.append(found["gap"])
        if gaps:
            line(f"strangers.{part}.gap", sum(gaps) / len(gaps), "1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the real logs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results, resumed if it exists")
    parser.add_argument("--only", nargs="*", help="kinds of samples; all by default")
    parser.add_argument("--part", choices=PARTS, help="one part alone")
    parser.add_argument("--stop-after", type=float, default=1e6, help="minutes after which no cell begins")
    return parser


if __name__ == "__main__":
    main()
