"""Two versions of a model, from the lines of finished comparisons on the same log: is the newer one as good?

    python benchmarks/paired.py OLD.jsonl ... --new NEW.jsonl ... [--model mgoe] [--against OTHER]

Each file holds lines of `results.jsonl`; of several lines of a seed the latest counts. The two are paired by
seed and by user. With `--against` the older one is another model. One line per figure:

- `paired.TASK.METRIC`: test, mean over seeds, of the newer one; `against` the older one, ratio newer over
  older.
- `paired.mean`: the mean of all tasks' AUC and GAUC; `paired.mean.spread`, the standard deviation over seeds.
- `paired.lead.mean`: by how much the newer one is ahead on the mean of all tasks' AUC and GAUC; `.low` and
  `.high`, its 95 % interval over users and seeds.
- `paired.cpu_s`: processor seconds of the whole training, mean over seeds; `against` likewise.
- `paired.parameters`, `paired.scored_per_s`: likewise.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import line
from mgoe.evaluation import estimate, find_leads
from mgoe.evaluation.influence import unpack
from mgoe.pipeline import records

OLD, NEW = "the older one", "the newer one"
RANKING = ("all", "ranking")


def finished(files: Sequence[Path], model: str) -> dict[int, records.Line]:
    """Return the latest line of each seed."""
    lines = [one for file in files for one in records.read(file)]
    return {
        one["seed"]: one
        for one in sorted(lines, key=lambda one: str(one.get("at")))
        if one["model"] == model and one["state"] == "finished"
    }


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, nargs="+")
    parser.add_argument("--new", type=Path, nargs="+", required=True)
    parser.add_argument("--model", default="mgoe")
    parser.add_argument("--against", help="model of the older lines; by default the same")
    asked = parser.parse_args(arguments)
    old, new = finished(asked.old, asked.against or asked.model), finished(asked.new, asked.model)
    seeds = sorted(old.keys() & new)
    if not seeds:
        parser.error(f"{asked.model}: both must have a seed in common, found {[*old]} and {[*new]}")
    theirs, ours = ({seed: unpack(of[seed]["influence"]) for seed in seeds} for of in (old, new))
    for mine, other in zip(estimate(NEW, [*ours.values()]), estimate(OLD, [*theirs.values()]), strict=True):
        if mine.metric in ("auc", "gauc"):
            name = f"paired.{mine.task}.{mine.metric}"
            line(name, mine.value, "share", other.value, mine.value / other.value)
        elif (mine.task, mine.metric) == RANKING:
            line("paired.mean", mine.value, "share", other.value, mine.value / other.value)
            line("paired.mean.spread", spread(mine.by_seed), "share", spread(other.by_seed))
    [lead] = [one for one in find_leads(NEW, ours, {OLD: theirs}) if (one.task, one.metric) == RANKING]
    for end, value in (("", lead.value), (".low", lead.low), (".high", lead.high)):
        line(f"paired.lead.mean{end}", value, "share")
    for name, key, unit in (
        ("cpu_s", "cpu_seconds", "s"),
        ("parameters", "parameters", "numbers"),
        ("scored_per_s", "scored_per_second", "1/s"),
    ):
        mine, other = (statistics.mean(of[seed][key] for seed in seeds) for of in (new, old))
        line(f"paired.{name}", mine, unit, other, mine / other)


if __name__ == "__main__":
    main()
