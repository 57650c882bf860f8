"""From measured top-N lists to tables: models beside baselines, candidates beside every item ranked, and what
each generator of candidates finds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mgoe._util.files import read_json
from mgoe.evaluation import (
    ALL,
    REACHABLE,
    Estimate,
    Influence,
    Row,
    Standings,
    estimate,
    find_leads,
    group_users,
    read_rows,
)
from mgoe.pipeline.folder import DONE, FIT, INFLUENCE
from mgoe.pipeline.lists import baselines_of, is_drawn, references_of
from mgoe.pipeline.plan import Log, Plan
from mgoe.pipeline.records import cost_of
from mgoe.pipeline.topn_cell import EXACT, MIX, RECALL, SAMPLED

SLICE = "topn"
"""Slice of these rows in `results.parquet`, where every other row is about examples."""
Measured = dict[str, dict[int, Influence]]
"""By model and seed."""


def topn_standings(plan: Plan) -> list[Standings]:
    """Return the tables of the lists of each log that are measured."""
    found: list[Standings | None] = []
    for log in plan.logs.values() if plan.comparison.topn is not None else ():
        found += [lists_standings(plan, log), exact_standings(plan, log), recall_standings(plan, log)]
    return [one for one in found if one is not None]


def lists_standings(plan: Plan, log: Log) -> Standings | None:
    """Return the table of models and baselines on a log. A baseline that draws nothing has one result for
    every seed."""
    measured, rows, best = Measured(), list[Row](), None
    facts = dict[str, list[dict[str, Any]]]()
    there = measured_lists(plan, log)
    for name, seed in there:
        folder = log.lists(name, seed)
        if name == REACHABLE:
            best = group_users(Influence.load(folder / INFLUENCE))
            rows += read_rows(folder / DONE)
            continue
        for each in [seed] if is_drawn(plan, name) else plan.settings.seeds:
            measured.setdefault(name, {})[each] = group_users(Influence.load(folder / INFLUENCE))
            rows += [Row(**{**row, "seed": each}) for row in read_rows(folder / DONE)]
        facts.setdefault(name, []).append(read_json(folder / FIT))
    if not measured:
        return None
    topn, references = plan.comparison.topn, dict(references_of(plan, log))
    assert topn is not None
    models, lead = ((), topn.baselines[0]) if topn.next_item else (plan.variants, plan.comparison.lead)
    one = _standings(f"Top-N lists, {protocol(plan, log)}", log, lead, measured, rows)
    return replace(
        one,
        costs={name: cost_of(of_seeds) for name, of_seeds in facts.items()},
        reached={} if best is None else find_reached(plan, best, measured),
        missing={
            name: "lists are not measured yet"
            for name in dict.fromkeys([*models, *references])
            if name not in dict(there)
        },
        notes=[
            _chosen({name: of_seeds[0]["best"] for name, of_seeds in facts.items()}),
            *(
                f"Of {one['queries']:,} events, {one['unseen']:.1%} are on items that nobody did before and "
                "count as missed."
                for one in [of_seeds[0] for of_seeds in facts.values()][:1]
                if "unseen" in one
            ),
            *_limited(plan, {name: of_seeds[0]["trials"] for name, of_seeds in facts.items()}),
        ],
    )


def find_reached(plan: Plan, best: Influence, measured: Measured) -> dict[str, Estimate]:
    """Return the share of the best reachable NDCG, at the first depth, that each model reaches."""
    assert plan.comparison.topn is not None
    metric = f"ndcg@{plan.comparison.topn.k[0]}"
    shares = {name: estimate(name, [one / best for one in of.values()]) for name, of in measured.items()}
    return {name: one for name, found in shares.items() for one in found if one.metric == metric}


def exact_standings(plan: Plan, log: Log) -> Standings | None:
    """Return the table of the reference's candidates beside every item ranked, for the same users."""
    lead = plan.comparison.lead
    measured, rows = Measured(), list[Row]()
    for folder, seed in _parts_of_lead(plan, log, EXACT):
        for part, name in ((SAMPLED, lead), (EXACT, f"{lead}, every item ranked")):
            measured.setdefault(name, {})[seed] = group_users(Influence.load(folder / part / INFLUENCE))
            rows += [Row(**{**row, "model": name}) for row in read_rows(folder / part / DONE)]
    question = "What ranking candidates alone costs, on a sample of users"
    return _standings(question, log, lead, measured, rows) if measured else None


def recall_standings(plan: Plan, log: Log) -> Standings | None:
    """Return the table of what each generator of candidates finds of what users then did."""
    measured, rows, notes = Measured(), list[Row](), list[str]()
    for folder, seed in _parts_of_lead(plan, log, RECALL):
        whole = group_users(Influence.load(folder / RECALL / INFLUENCE))
        for column, (name, metric) in enumerate(whole.names):
            only = [column]
            values, parts = whole.values[only], whole.parts[:, only]
            measured.setdefault(name, {})[seed] = Influence(((ALL, metric),), values, whole.users, parts)
        rows += [
            Row(**{**row, "model": row["task"], "task": ALL}) for row in read_rows(folder / RECALL / DONE)
        ]
        if (folder / EXACT / DONE).exists():
            exact = read_json(folder / EXACT / FIT)
            shares = ", ".join(f"{name} {share:.4f}" for name, share in exact["recall"].items())
            notes.append(f"Of the first {exact['depth']} of every item ranked (seed {seed}): {shares}.")
    question = "What each generator finds of what users then did"
    return replace(_standings(question, log, MIX, measured, rows), notes=notes) if measured else None


def topn_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return every number of the lists, as `results.parquet` holds them."""
    found = []
    for log in plan.logs.values() if plan.comparison.topn is not None else ():
        for name, seed in measured_lists(plan, log):
            variant = plan.variants.get(name)
            whose = {
                "log": log.name,
                "base": variant.base if variant else name,
                "variant": variant.label if variant else "",
                "slice": SLICE,
            }
            found += [{**row, **whose} for row in read_rows(log.lists(name, seed) / DONE)]
    return found


def measured_lists(plan: Plan, log: Log) -> list[tuple[str, int]]:
    """Return the name and seed of the models, baselines and bounds whose lists on a log are measured."""
    asked = [(cell.variant.name, cell.seed) for cell in plan.cells if cell.log == log and cell.done]
    asked += references_of(plan, log)
    return [one for one in asked if (log.lists(*one) / DONE).exists()]


def protocol(plan: Plan, log: Log) -> str:
    """Return in words what lists of a log are measured on."""
    topn = plan.comparison.topn
    assert topn is not None
    by_time = "next items" if topn.next_item else "by time"
    last = by_time if log.whole is None else "each user's last item held out"
    return f"{last}, known items {'hidden' if topn.hides(log.whole is not None) else 'included'}"


def _standings(question: str, log: Log, reference: str, measured: Measured, rows: Sequence[Row]) -> Standings:
    leads = find_leads(reference, measured.get(reference, {}), measured)
    return Standings(question, log.name, reference, list(measured), rows, leads)


def _parts_of_lead(plan: Plan, log: Log, part: str) -> list[tuple[Path, int]]:
    """Return the folder and seed of the reference's results on a log that have a part."""
    lead = plan.comparison.lead
    found = [(log.lists(*one), one[1]) for one in measured_lists(plan, log) if one[0] == lead]
    return [(folder, seed) for folder, seed in found if (folder / part / DONE).exists()]


def _limited(plan: Plan, trials: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Say how long a trial could take where that can end it, and how often it did."""
    assert plan.comparison.topn is not None
    baselines = baselines_of(plan)
    stopped = {
        name: sum(one["stopped_after_epochs"] is not None for one in of)
        for name, of in trials.items()
        if name in baselines and baselines[name].learns_in_epochs
    }
    if not stopped:
        return []
    counts = ", ".join(f"{name} {count} of {len(trials[name])}" for name, count in stopped.items())
    return [
        f"Trials that {plan.comparison.topn.trial_minutes:g} processor minutes ended before their last "
        f"epoch, first seed: {counts}."
    ]


def _chosen(best: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what validation chose."""
    chosen = []
    for name, settings in best.items():
        texts = (
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in settings.items()
        )
        chosen.append(f"{name}: {', '.join(texts)}")
    return f"Settings that validation chose, first seed: {'; '.join(chosen)}."
