"""The figures of a comparison, from tables that are made by hand."""

import json
import shlex
from pathlib import Path

import pytest
from benchmarks.figures import Figures, read

from benchmarks import compared
from mgoe.config import BOUNDS, load_comparison
from mgoe.evaluation import Cost, Estimate, Row, Standings
from mgoe.experiments import ComparisonResult

COMPARED = "python benchmarks/compared.py "
TABLES = [
    pytest.param(figures, id=file.stem)
    for file in sorted(Path("docs/figures").glob("*.json"))
    if (figures := read(file)).commands[0].startswith(COMPARED)
]


def row(model: str, seed: int, value: float, task: str = "all", metric: str = "ranking", **more: str) -> Row:
    return Row(
        **{"split": "test", "slice": "all"} | more,  # type: ignore[typeddict-item]
        model=model,
        seed=seed,
        task=task,
        metric=metric,
        value=value,
    )


def lead(metric: str, value: float) -> Estimate:
    return Estimate("mgoe", "mmoe", "all", metric, value, value - 1, value + 1, (value,), users=100)


@pytest.fixture
def result(tmp_path: Path) -> ComparisonResult:
    """A table of two models, their lists, and a sample of these lists."""
    cells = [
        row("mgoe", 0, 0.5),
        row("mgoe", 1, 0.75),
        row("mgoe", 0, 0.1, split="valid"),
        row("mgoe", 0, 0.6, metric="auc", slice="unseen-items"),
        row("best-reachable", 0, 0.875),
    ]
    costs = {"mgoe": Cost(parameters=2_000, cpu_seconds=3, serving_ms=4), "mmoe": Cost()}
    lists, sample = ([row("mgoe", 0, value, metric="hr@10")] for value in (0.25, 0.125))
    tables = [
        Standings("cells", "mine", "mgoe", ["mgoe", "mmoe"], cells, [lead("ranking", 0.25)], costs),
        Standings("lists", "mine", "mgoe", ["mgoe", "mmoe"], lists, [lead("hr@10", 0.5)]),
        Standings("sample", "mine", "mgoe", ["mgoe"], sample),
    ]
    for seed, seconds in enumerate((1.0, 2.0)):
        fit = tmp_path / "logs/mine/topn/mmoe" / str(seed) / "fit.json"
        fit.parent.mkdir(parents=True)
        fit.write_text(json.dumps({"lists_cpu_seconds": seconds}))
    return ComparisonResult(tmp_path, tables, {}, 0)


def printed(
    result: ComparisonResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> dict[str, tuple[float, str]]:
    monkeypatch.setattr(compared, "compare", lambda *_, **__: result)
    compared.main(["examples/arena-worlds.yaml", *words])
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    return {line["name"]: (line["value"], line["unit"]) for line in lines}


def test_figures_are_means_over_seeds_with_leads_and_costs(
    result: ComparisonResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert printed(result, monkeypatch, capsys) == {
        "mine.mgoe.mean": (0.625, "share"),
        "mine.best-reachable.mean": (0.875, "share"),
        "mine.mmoe.mean.lead": (0.25, "share"),
        "mine.mmoe.mean.lead.low": (-0.75, "share"),
        "mine.mmoe.mean.lead.high": (1.25, "share"),
        "mine.mgoe.parameters": (2.0, "thousands"),
        "mine.mgoe.cpu_seconds": (3.0, "s"),
        "mine.mgoe.serving_ms": (4.0, "ms"),
        "mine.mgoe.hr@10": (0.25, "share"),
        "mine.mmoe.hr@10.lead": (0.5, "share"),
        "mine.mmoe.hr@10.lead.low": (-0.5, "share"),
        "mine.mmoe.hr@10.lead.high": (1.5, "share"),
        "mine.mmoe.lists_cpu_seconds": (1.5, "s"),
    }


def test_what_is_printed_and_its_prefix_may_be_chosen(
    result: ComparisonResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    found = printed(result, monkeypatch, capsys, "--figures", "unseen-items.auc", "--as", "again")
    assert found["again.mine.mgoe.unseen-items.auc"] == (0.6, "share")
    assert not [name for name in found if "mean" in name or not name.startswith("again.")]


def test_a_cell_that_failed_ends_the_command(
    result: ComparisonResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    result.failed["mine, mmoe"] = "it ran out of memory"
    with pytest.raises(SystemExit, match="it ran out of memory"):
        printed(result, monkeypatch, capsys)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("table", TABLES)
def test_every_value_of_a_table_is_of_a_log_and_a_model_that_its_commands_compare(table: Figures):
    found: list[str] = []
    for command in table.commands:
        given = compared.parse(shlex.split(command.removeprefix(COMPARED)))
        settings = load_comparison(given.config, given.set)
        logs, models = given.logs or [*settings.logs], given.models or settings.model_names
        assert set(logs) <= set(settings.logs)
        assert set(models) <= set(settings.model_names)
        lists = settings.topn.baselines or [] if settings.topn else []
        names = [f"{log}.{model}." for log in logs for model in (*models, *lists, *BOUNDS)]
        found += [f"{given.prefix}.{name}".removeprefix(".") for name in names]
    assert [value.name for value in table.values if not value.name.startswith(tuple(found))] == []
