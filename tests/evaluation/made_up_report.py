"""A report with every part filled, from made-up numbers of a believable size."""

import numpy as np

from mgoe.evaluation import Estimate, Row, Standings
from mgoe.evaluation.report import MacroView, ReportData
from mgoe.features.macro_nodes import MacroNode
from mgoe.graph.matrices import lift

SKILL = {
    "mgoe": 0.0105,
    "mgoe-paper": -0.004,
    "shared-bottom": -0.19,
    "shared-bottom+counts": -0.12,
    "shared-bottom+edges": 0.001,
    "shared-bottom+graph": 0.006,
    "mmoe": -0.185,
    "mmoe+counts": -0.121,
    "mmoe+edges": 0.0022,
    "mmoe+graph": 0.0088,
}
BASE = {"click": (0.722, 0.711), "fav": (0.793, 0.671), "buy": (0.722, 0.711)}
RATE = {"click": 0.235, "fav": 0.022, "buy": 0.04}
SLICES = {
    "new-pairs": -0.002,
    "unseen-users": -0.09,
    "unseen-items": -0.14,
    "activity-few": -0.05,
    "activity-some": -0.01,
    "activity-many": 0.012,
    "age-near": 0.006,
    "age-far": -0.008,
}


def report_data(
    models=tuple(SKILL), seeds=range(5), title="Tmall: click, fav, buy", rows=None, leads=None, **changes
):
    """Return a report; `rows` and `leads` take the place of those of its standings."""
    rng = np.random.default_rng(0)
    made, known, estimates, curves, reliability = [], [], [], {}, {}
    for model in models:
        for seed in seeds:
            noise = rng.normal() * 0.0008
            made += _rows(rng, model, seed, noise)
            curves.setdefault(model, {})[seed] = _curve(rng, SKILL[model] + noise)
        reliability[model] = {task: _points(rng, RATE[task], SKILL[model]) for task in BASE}
        estimates += [
            _estimate(model, None, task, m, BASE[task][k] + SKILL[model], rng)
            for task in BASE
            for k, m in enumerate(("auc", "gauc"))
        ]
        estimates.append(_estimate(model, None, "all", "ranking", 0.7217 + SKILL[model], rng))
        for task, metric in [("all", "ranking"), *((t, m) for t in BASE for m in ("auc", "gauc"))]:
            if model != models[0]:
                known.append(
                    _estimate(models[0], model, task, metric, SKILL[models[0]] - SKILL[model], rng, 0.0012)
                )
    whole = {
        "title": title,
        "standings": Standings(
            "",
            "",
            models[0],
            models,
            made if rows is None else rows,
            known if leads is None else leads,
        ),
        "facts": {
            "users": 17_435,
            "items": 35_920,
            "training examples": 2_148_012,
            "test examples": 449_212,
            "snapshots": 9,
            "macro nodes": "12 × 20",
            "models × seeds": f"{len(models)} × {len(seeds)}",
            "total time": "48 min",
        },
        "estimates": estimates,
        "curves": curves,
        "reliability": reliability,
        "macro": _macro(rng),
        "notes": [
            "Every model reads the same snapshot. Test examples are 1 to 19 (days) after it.",
            "Negatives: three per positive example, drawn from the events of the same day.",
            "Validation picked the epoch; test was read once.",
        ],
        "settings": "data:\n  log: [tmall.parquet]\n  bucket: 1d\ntasks:\n- name: click\n- name: fav\n",
        "command": "mgoe run examples/tmall.yaml --set data.log=tmall.parquet --out runs/tmall",
    }
    return ReportData(**(whole | changes))


def _rows(rng, model, seed, noise):
    found = []

    def add(task, metric, value, slice="all"):
        found.append(
            Row(
                model=model,
                seed=seed,
                split="test",
                slice=slice,
                task=task,
                metric=metric,
                value=float(value),
            )
        )

    for slice, shift in {"all": 0.0, **SLICES}.items():
        values = []
        for task, (auc, gauc) in BASE.items():
            rows = 449_212 if slice == "all" else int(60_000 + 1e6 * abs(shift))
            values += [auc + SKILL[model] + noise + shift, gauc + 0.8 * SKILL[model] + noise + shift]
            add(task, "auc", values[-2], slice)
            add(task, "gauc", values[-1], slice)
            add(task, "gauc_users", 8112, slice)
            add(task, "gauc_users_skipped", 1204, slice)
            add(task, "logloss", 0.52 * RATE[task] * 4 - SKILL[model] / 2 + noise, slice)
            add(task, "calibration_error", 0.004 + abs(noise), slice)
            add(task, "predicted_over_observed", 1.03 + noise * 20, slice)
            add(task, "examples", rows, slice)
            add(task, "positives", rows * RATE[task], slice)
        add("all", "ranking", np.mean(values), slice)
    for task in (*BASE, "all"):
        for depth, base in ((10, 0.06), (50, 0.15)):
            add(task, f"hr@{depth}", base + max(SKILL[model], -0.05) + noise)
            add(task, f"ndcg@{depth}", base / 3 + max(SKILL[model], -0.01) + noise)
    return found


def _curve(rng, skill):
    epochs, best = [], 2 + int(rng.integers(0, 3))
    gates = rng.dirichlet([4, 2, 2], 3)
    for epoch in range(1, 6):
        monitor = (
            0.715
            + skill
            - 0.012 * np.exp(-epoch / 1.5)
            - 0.0006 * max(0, epoch - best)
            + rng.normal() * 0.0004
        )
        losses = {task: 0.55 * RATE[task] * 3 * (1 + 0.25 * np.exp(-epoch)) - skill / 3 for task in BASE}
        epochs.append(
            {"epoch": epoch, "losses": losses, "monitor": float(monitor), "watch": {"gates": gates.tolist()}}
        )
    best = max(epochs, key=lambda e: e["monitor"])["epoch"]
    return {"monitor": "all.ranking", "best_epoch": best, "epochs": epochs}


def _points(rng, rate, skill):
    predicted = np.sort(rate * np.exp(rng.normal(-0.2, 0.6 + skill, 20))).clip(0, 0.9)
    return {
        "predicted": predicted.tolist(),
        "observed": np.clip(predicted * np.exp(rng.normal(0, 0.06, 20)), 0, 1).tolist(),
        "rows": [22460.0] * 20,
    }


def _estimate(model, baseline, task, metric, value, rng, width=0.0035):
    seeds = tuple(value + rng.normal(size=5) * 0.0007)
    return Estimate(
        model, baseline, task, metric, value, value - width, value + width, seeds, 9316, 0.01, 0.02
    )


def macro_nodes(rng, size, members, kind="thing"):
    return [
        MacroNode(
            node,
            f"{kind} {node}",
            int(count),
            [10_007 * (node + 3), 7_919 * (node + 5)],
            [f"{kind} {node}a", f"{kind} {node}b"],
            [f"color {node} (60%, of all 5%)"] if node % 2 else [],
        )
        for node, count in enumerate(rng.multinomial(members, np.full(size, 1 / size)))
    ]


def _macro(rng, ku=12, ki=20):
    edges = rng.gamma(1.2, 30, (ku, ki)) * (1 + 6 * (np.arange(ki)[None] % ku == np.arange(ku)[:, None]))
    users, items = macro_nodes(rng, ku, 4000, "person"), macro_nodes(rng, ki, 6000)
    return MacroView(lift(edges), users, items, cold_users=31, cold_items=0)
