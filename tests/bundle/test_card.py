"""The model card of a bundle says what the bundle holds."""

import json
import re
import shutil
from pathlib import Path

import mgoe
from mgoe.bundle import CARD, model_card
from mgoe.evaluation import read_rows
from mgoe.evaluation.rows import FEW_USERS

NEW_PAIRS = "split == 'test' and slice == 'new-pairs' and task == 'all' and metric == 'ranking'"


def card_of(bundle: mgoe.Bundle) -> str:
    return (bundle.path / CARD).read_text(encoding="utf-8")


def test_every_figure_is_the_bundle_s(finished: Path):
    bundle = mgoe.load(finished / "bundle")
    card, log = card_of(bundle), bundle.manifest.log
    assert (
        f"an event log of {log['rows']:,} rows with {log['users']:,} users and {log['items']:,} items" in card
    )
    for split, counts in log["splits"].items():
        assert re.search(rf"\| {split} \| [\d-]+ \| {counts['examples']:,} \|", card)
    rows = bundle.metrics.query("split == 'test' and slice == 'all'").set_index(["task", "metric"])["value"]
    digits = 2 if rows["click", "users"] < FEW_USERS else 4
    for task in bundle.tasks:
        auc = f"{rows[task, 'auc']:.{digits}f}"
        interval = re.search(rf"\| {task} AUC \| {auc} \| (\S+) to (\S+) \|", card)
        assert interval
        assert float(interval[1]) < rows[task, "auc"] < float(interval[2])
        agreement = bundle.calibration.tasks[task].after.predicted_over_observed
        assert agreement is not None
        assert f"{agreement:.3f}" in card
    assert f"| new-pairs | {bundle.metrics.query(NEW_PAIRS)['value'].item():.{digits}f} |" in card
    assert json.loads((finished / "cells/mgoe/0/fit.json").read_text())["parameters"] > 0
    assert "3 per positive" in card


def test_an_exposure_log_has_other_meanings_and_limits(shown: Path):
    card = card_of(mgoe.load(shown / "bundle"))
    assert (
        "- `buy`: the probability that it is done when the item is shown, given that `click` is done." in card
    )
    assert "- `stay`: the value of `stay` when the item is shown." in card
    assert 'objective="click * buy"' in card
    assert (
        "Features of the user: community. Features of the item: about. Context of the exposure: device."
        in card
    )
    assert "what earlier rankings showed" in card
    assert "per positive" not in card


def test_no_part_is_empty_and_no_line_is_torn(finished: Path, shown: Path):
    for run in (finished, shown):
        card = card_of(mgoe.load(run / "bundle"))
        assert re.findall("^## (.*)", card, re.MULTILINE) == [
            *("Intended use", "Data", "Inputs", "Metrics", "Calibration", "Limits", "Cost and versions"),
        ]
        assert not re.search(r"\n\n\n|nan|None|\{", card)
        assert all(re.match(r"(#|\||- |```|[A-Z`]|import|bundle|$)", line) for line in card.splitlines())


def test_the_code_of_a_card_runs(shown: Path):
    code = re.search(r"```python\n(.*?)```", card_of(bundle := mgoe.load(shown / "bundle")), re.DOTALL)
    assert code
    names = {"USER": bundle.ids("user", [0])[0], "ITEM": bundle.ids("item", [0])[0]}
    exec(code[1].replace("FOLDER", str(bundle.path)), names)


def test_a_card_can_be_edited(finished: Path, tmp_path: Path):
    copy = Path(shutil.copytree(finished / "bundle", tmp_path / "bundle"))
    (copy / CARD).write_text("Owner: the shop team")
    assert mgoe.load(copy).tasks == mgoe.load(finished / "bundle").tasks


def test_a_bundle_without_intervals_and_costs_has_a_card_too(finished: Path):
    bundle = mgoe.load(finished / "bundle")
    manifest = bundle.manifest.model_copy(update={"test": [], "cost": {}})
    card = model_card(manifest, bundle.settings, bundle.graph, read_rows(bundle.path / "metrics.json"))
    assert re.search(r"\| click AUC \| [\d.]+ \| - \|", card)
    assert "of processor time" not in card
