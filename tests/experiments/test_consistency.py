"""What is there already: kept where it is what is asked for, refused or computed again where it is not."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mgoe import experiments
from mgoe.config.base import Settings
from mgoe.errors import OutputError
from mgoe.experiments.report import TIDY_COLUMNS
from mgoe.graph.build.workplace import building
from mgoe.pipeline import records
from mgoe.pipeline.execute import check_choice
from mgoe.pipeline.nodes import nodes_of
from mgoe.pipeline.plan import Cell, Plan
from mgoe.pipeline.values import ALGORITHMS, plain_values
from mgoe.work.node import Node
from mgoe.work.store import Store
from tests.experiments.tiny import here, numbers, settings


def test_what_was_made_with_other_settings_is_refused_or_computed_again(
    raw: dict[str, Any], compared: Path, tmp_path: Path, in_this_process: None
):
    out = shutil.copytree(compared, tmp_path / "out")
    other = settings(raw, models=["mgoe"], variants={}, seeds=[0], training={"epochs": 2, "batch_size": 1024})
    with pytest.raises(OutputError, match=r"`training.epochs`; choose another folder, or overwrite it"):
        experiments.compare(other, out)
    pd.testing.assert_frame_equal(numbers(out), numbers(compared))
    built = (out / "logs" / "tiny" / "seeds" / "0" / "graph" / "graph.json").stat().st_mtime_ns
    experiments.compare(other, out, overwrite=True)
    assert (out / "logs" / "tiny" / "seeds" / "0" / "graph" / "graph.json").stat().st_mtime_ns == built
    assert set(numbers(out)["model"]) == {"mgoe"}


def test_what_is_computed_again_is_computed_again_in_all_that_follows_from_it(
    own: dict[str, Any], least: Path, tmp_path: Path, in_this_process: None
):
    """Checksums of what is judged, rows of the references and lines of cells are of the data that are
    there."""
    out = shutil.copytree(least, tmp_path / "out")
    kept = [out / "logs" / "tiny" / name for name in ("references.json", "seeds/0/examples.json")]
    before = [path.read_text() for path in kept]
    other = settings(own, split={"cuts": [0.4, 0.6, 0.9]})
    with pytest.raises(OutputError, match=r"another `split.cuts`"):
        experiments.compare(other, out)
    assert [path.read_text() for path in kept] == before
    assert experiments.compare(other, out, stop_after=0, overwrite=True).waiting == 1
    assert records.latest(out)["tiny", "shared-bottom", 0]["state"] == "outdated"
    assert list(numbers(out).columns) == list(TIDY_COLUMNS)
    assert experiments.compare(other, out).failed == {}
    assert all(path.read_text() != text for path, text in zip(kept, before, strict=True))
    assert records.latest(out)["tiny", "shared-bottom", 0]["examples"] == json.loads(kept[1].read_text())


def test_another_log_under_the_same_path_is_noticed(own: dict[str, Any], least: Path, tmp_path: Path):
    out, made = shutil.copytree(least, tmp_path / "out"), settings(own)
    file = max((tmp_path / "log").rglob("*.parquet"))
    os.utime(file, ns=(1, 1))  # copied, and the same
    experiments.compare(made, out)
    rows = pd.read_parquet(file)
    rows.iloc[:-1].to_parquet(file)
    with pytest.raises(
        OutputError,
        match=r"was made of another log: the files hold something else now; choose another folder, or",
    ):
        experiments.compare(made, out)
    shutil.move(tmp_path / "log", tmp_path / "missing")
    assert (
        experiments.compare(made, out).waiting == 0
    )  # all is finished, and nothing tells that it is of another
    shutil.move(tmp_path / "missing", tmp_path / "log")


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("{", "damaged, or of another version of mgoe"),
        ("[]", "damaged, or of another version of mgoe"),
        ('{"data": {}, "tasks": []}', "damaged, or of another version of mgoe"),
        (None, "missing"),
    ],
)
def test_what_lost_its_note_is_said_to_have(
    raw: dict[str, Any], tmp_path: Path, text: str | None, state: str
):
    plan = Plan(settings(raw), tmp_path)
    for part in nodes_of(plan, plan.cells):
        part.begin()
        part.files[0].parent.mkdir(parents=True, exist_ok=True)
        part.files[0].touch()
    [part] = [part for part in nodes_of(plan, plan.cells[:1]) if part.path == plan.cells[0].folder]
    part.note.unlink() if text is None else part.note.write_text(text)
    with pytest.raises(
        OutputError,
        match=rf"cannot be checked against the settings: its note, .*0\.asked\.json, is {state}; choose",
    ):
        stale_of(nodes_of(plan, plan.cells), overwrite=False)
    assert stale_of(nodes_of(plan, plan.cells), overwrite=True) == [part]


def test_a_build_that_was_cut_off_goes_with_its_settings(raw: dict[str, Any], tmp_path: Path):
    plan = Plan(settings(raw), tmp_path)
    for part in nodes_of(plan, plan.cells):
        part.begin()
    cut_off = building(plan.cells[0].graph)
    cut_off.mkdir(parents=True)
    plan = Plan(settings(raw, graph=raw["graph"] | {"rank": 4}), tmp_path)
    for part in stale_of(nodes_of(plan, plan.cells), overwrite=False):
        part.remove()
    assert not cut_off.exists()


def test_what_was_tuned_otherwise_goes_with_the_cells_that_used_it(raw: dict[str, Any], tmp_path: Path):
    tuned = settings(raw, tune={"trials": 2})
    plan = Plan(tuned, tmp_path)
    for part in nodes_of(plan, plan.cells):
        part.begin()
        part.files[0].parent.mkdir(parents=True, exist_ok=True)
        part.files[0].touch()
    assert stale_of(nodes_of(plan, plan.cells), overwrite=False) == []
    plan = Plan(tuned.model_copy(update={"seeds": [1, 0]}), tmp_path)  # the search is of the first seed
    parts = nodes_of(plan, plan.cells)
    for _ in ("it is there", "the cells that used it are"):
        searched = r"tuned/mgoe.json: settings were searched with seed 0, .* found 1; put 0 first; choose"
        with pytest.raises(OutputError, match=searched):
            stale_of(parts, overwrite=False)
        (tmp_path / "logs" / "tiny" / "tuned" / "mgoe.json").unlink(missing_ok=True)
    for part in stale_of(parts, overwrite=True):
        part.remove()
    assert not any(cell.done for cell in plan.cells)
    assert all((cell.log.stage(cell.seed) / "data").exists() for cell in plan.cells)


def stale_of(nodes: list[Node], overwrite: bool) -> list[Node]:
    return Store(Path(), nodes).stale(overwrite)


def made_of(plan: Plan, chosen: list[Cell]) -> Store:
    """Return what some cells are made of, and searches for their models."""
    return Store(plan.out, nodes_of(plan, [*chosen, *map(plan.searched, chosen)]))


def finished(plan: Plan) -> None:
    """As if all of it were made."""
    for part in nodes_of(plan, plan.cells):
        part.begin()
        part.files[0].parent.mkdir(parents=True, exist_ok=True)
        part.files[0].touch()
    (plan.out / "comparison.yaml").touch()


@pytest.mark.parametrize(
    "change",
    [
        {"evaluation": {"ranking_queries": 0, "slices": True}},
        {"split": {"cuts": [0.4, 0.6, 0.9]}},
        {"graph": {"recents": 5, "rank": 4}},
    ],
)
def test_with_a_choice_of_cells_no_other_is_taken_away(
    raw: dict[str, Any], tmp_path: Path, change: dict[str, Any]
):
    out = tmp_path / "out"
    finished(Plan(settings(raw, tune={"trials": 2}), out))
    before = sorted(out.rglob("*"))
    refused = r"does not belong to the chosen cells alone, found 5 finished cells .*choose all models"
    with pytest.raises(OutputError, match=refused):
        experiments.compare(
            settings(raw, tune={"trials": 2}, **change),
            out,
            models=["shared-bottom"],
            seeds=[1],
            overwrite=True,
        )
    assert set(before) <= set(out.rglob("*"))


@pytest.mark.parametrize("seeds", [None, [0]])
def test_what_differs_of_the_chosen_cells_alone_is_computed_again(
    raw: dict[str, Any], tmp_path: Path, seeds: list[int] | None
):
    finished(Plan(settings(raw, tune={"trials": 2}), tmp_path))
    narrow = {"name": "shared-bottom", "base": "shared-bottom", "options": {"width": 4}}
    plan = Plan(settings(raw, tune={"trials": 2}, models=["mgoe", narrow]), tmp_path)
    parts = stale_of(nodes_of(plan, plan.cells), overwrite=True)
    chosen = plan.chosen(["shared-bottom"], seeds)
    if seeds is None:
        check_choice(plan, chosen, made_of(plan, chosen), parts)
        assert {part.path for part in parts} == {chosen[0].search, *(cell.folder for cell in chosen)}
    else:
        with pytest.raises(OutputError, match=r"found 1 finished cells of others"):
            check_choice(plan, chosen, made_of(plan, chosen), parts)


def test_prepared_data_of_a_seed_that_is_not_chosen_stays(raw: dict[str, Any], tmp_path: Path):
    """Though no cell was made of it yet."""
    data = Plan(settings(raw), tmp_path).logs["tiny"].stage(1) / "data"
    data.mkdir(parents=True)
    plan = Plan(settings(raw, split={"cuts": [0.4, 0.6, 0.9]}), tmp_path)
    parts = stale_of(nodes_of(plan, plan.cells), overwrite=True)
    assert [part.path for part in parts] == [data]
    own, others = (plan.chosen(seeds=[seed]) for seed in (0, 1))
    check_choice(plan, others, made_of(plan, others), parts)
    with pytest.raises(OutputError, match=r"seeds/1/data: must be computed again .* found 0 finished cells"):
        check_choice(plan, own, made_of(plan, own), parts)


def test_a_choice_that_one_model_has_alone_leaves_the_others_as_they_are(raw: dict[str, Any], tmp_path: Path):
    def digests(space: dict[str, Any]) -> dict[str, str]:
        plan = Plan(settings(raw, variants={}, seeds=[0], tune={"space": space}), tmp_path)
        parts = {part.path: part.digest for part in nodes_of(plan, plan.cells)}
        return {cell.variant.name: parts[cell.folder] + parts[cell.search] for cell in plan.cells}

    epochs = {"training.epochs": [1, 2]}
    before, after = digests(epochs), digests(epochs | {"options.products": [0, 64]})
    assert {name for name in before if before[name] != after[name]} == {"mgoe"}


def test_a_search_stays_whatever_is_evaluated(raw: dict[str, Any], tmp_path: Path):
    tuned = settings(raw, tune={"trials": 2})
    finished(Plan(tuned, tmp_path))
    plan = Plan(tuned.model_copy(update={"evaluation": {"ranking_queries": 0, "slices": True}}), tmp_path)
    stale = stale_of(nodes_of(plan, plan.cells), overwrite=True)
    assert {part.path for part in stale} == {cell.folder for cell in plan.cells}


def test_another_default_of_a_switch_is_noticed(raw: dict[str, Any], tmp_path: Path):
    plan = Plan(
        settings(
            raw, variants={}, models=[{"name": "m", "base": "mgoe", "options": {"tau": 2.0}}], seeds=[0]
        ),
        tmp_path,
    )
    [part] = [part for part in nodes_of(plan, plan.cells) if part.path == plan.cells[0].folder]
    part.begin()
    assert part.difference() is None
    options = part.values["model"]["options"]
    assert options["tau"] == 2
    other = part.values["model"] | {"options": options | {"width": options["width"] + 1}}
    replace(part, values={**part.values, "model": other}).begin()
    assert part.difference() == ("values.model.options.width", options["width"] + 1, options["width"])


def test_a_note_that_was_changed_by_hand_is_no_note(raw: dict[str, Any], tmp_path: Path):
    [part, *_] = (plan := Plan(settings(raw), tmp_path)) and nodes_of(plan, plan.cells)
    part.begin()
    assert part.difference() is None
    note = json.loads(part.note.read_text())
    part.note.write_text(json.dumps(note | {"values": {**note["values"], "negatives": {"per_positive": 9}}}))
    assert part.difference() == ("note", "damaged, or of another version of mgoe", "")
    part.path.mkdir()
    with pytest.raises(OutputError, match=r"seeds/0/data: cannot be checked .* damaged, .*; choose another"):
        stale_of([part], overwrite=False)


def test_another_algorithm_makes_all_that_follows_outdated_and_nothing_else(
    raw: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = Plan(settings(raw, tune={"trials": 2}), tmp_path)
    finished(plan)
    monkeypatch.setitem(ALGORITHMS, "search", ALGORITHMS["search"] + 1)
    stale = stale_of(nodes_of(plan, plan.cells), overwrite=True)
    assert {part.kind for part in stale} == {"search", "cell"}
    with pytest.raises(OutputError, match=r"tuned/mgoe.json: was made by another version of mgoe"):
        stale_of(nodes_of(plan, plan.cells), overwrite=False)


def test_a_new_setting_that_is_off_makes_nothing_outdated():
    class Before(Settings):
        names: tuple[str, ...] = ()
        width: int = 3

    class After(Before):
        names: tuple[str, ...] = ("a",)
        limit: int | None = None
        fast: bool = False
        before: Before = Before()

    assert plain_values(Before()) == {"width": 3}
    assert plain_values(Before(names=("b",))) | {"before": {"width": 3}} == plain_values(After(names=("b",)))
    assert plain_values(After(limit=0)) == {"names": ["a"], "width": 3, "limit": 0, "before": {"width": 3}}
    assert plain_values(After(names=()))["names"] == []


def test_a_log_that_could_not_be_read_at_first_is_known_by_its_files_later(
    own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.move(tmp_path / "log", tmp_path / "away")
    assert experiments.compare(settings(own), tmp_path / "out").failed
    shutil.move(tmp_path / "away", tmp_path / "log")
    monkeypatch.setattr("mgoe._util.processes.run_jobs", here)
    assert experiments.compare(settings(own), tmp_path / "out").failed == {}
    os.utime(file := max((tmp_path / "log").rglob("*.parquet")))
    assert experiments.compare(settings(own), tmp_path / "out", stop_after=0).waiting == 0
    pd.read_parquet(file).iloc[:-1].to_parquet(file)
    with pytest.raises(OutputError, match="made of another log"):
        experiments.compare(settings(own), tmp_path / "out")
