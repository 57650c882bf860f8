"""What a comparison consists of, and mistakes in it, which are named before any work."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mgoe import experiments
from mgoe.config import AUTO, deep_merge, dump_settings, load_comparison
from mgoe.data import read_settings
from mgoe.errors import ConfigError, TrainingError
from mgoe.experiments.checks import check
from mgoe.models import PRESETS, MGOEOptions
from mgoe.pipeline.plan import Plan, with_choices
from tests.experiments.tiny import settings

WRONG = [
    ({"modles": ["mgoe"]}, ConfigError, "did you mean 'models'"),
    ({"models": ["mgeo"]}, ConfigError, "did you mean 'mgoe'"),
    ({"models": ["mgoe", "mgoe"]}, ConfigError, "found 'mgoe' twice"),
    ({"reference": "mgoo"}, ConfigError, "did you mean 'mgoe'"),
    ({"tables": {"a": {"models": ["mgoe:randm"]}}}, ConfigError, "did you mean 'mgoe:random'"),
    (
        {"variants": {"a": {"data.log": "b"}}},
        ConfigError,
        r"variants\.a\.data\.log: .*graph\|training",
    ),
    ({"variants": {"a": {"graph.betta": 1}}}, ConfigError, "did you mean 'beta'"),
    ({"variants": {"a": {"model.options.ta": 1}}}, ConfigError, "did you mean 'tau'"),
    ({"variants": {"a/b": {"graph.beta": 1}}}, ConfigError, "found 'a/b'"),
    ({"logs": {"a": {"simulate": {"userz": 5}}}}, ConfigError, "did you mean 'users'"),
    ({"logs": {"a": {"run": "nowhere.yaml"}}}, ConfigError, "no such file"),
    ({"logs": {"a": {"tasks": ["click"]}}}, ConfigError, "data is needed"),
    ({"tune": {"space": {"data.log": [1]}}}, ConfigError, "found 'data.log'"),
    (
        {"tune": {"space": {"training.monitor": ["click.auc", "buy.auc"]}}},
        ConfigError,
        "what trials are compared by",
    ),
    ({"tune": {"space": {"training.learning_rte": [1]}}}, ConfigError, "did you mean 'learning_rate'"),
    ({"tune": {"space": {"training.epochs": [2, -1]}}}, ConfigError, "greater than or equal to 1"),
    ({"tune": {"space": {"options.ta": [1]}}}, ConfigError, "did you mean 'tau'"),
    ({"tune": {"space": {"options.tau": ["hot"]}}}, ConfigError, "found 'hot'"),
    ({"models": ["mgoe", {"name": "mgoe:random", "base": "mmoe"}]}, ConfigError, "found 'mgoe:random' twice"),
    (
        {"models": ["mgoe", {"name": "chance", "base": "mmoe"}]},
        ConfigError,
        "choose another name than 'chance'",
    ),
    ({"models": [{"name": "../mgoe", "base": "mgoe"}], "variants": {}}, ConfigError, "a name has no slash"),
    ({"variants": {"a\n": {"graph.beta": 1}}}, ConfigError, "found 'a"),
    ({"tune": {"space": {"training.epochs": {"low": 5, "high": 2}}}}, ConfigError, "below `high`"),
    ({"tune": {"first": [{"training.epoch": 2}]}}, ConfigError, "did you mean 'training.epochs'"),
    (
        {"tune": {"first": [{"training.epochs": 5}]}},
        ConfigError,
        "values that `space` allows, found training.epochs: 5",
    ),
    ({"tune": {"first": [{"training.learning_rate": 1}]}}, ConfigError, "found training.learning_rate: 1"),
    (
        {"tune": {"space": {"training.epochs": {"low": 2, "high": 6}}, "first": [{"training.epochs": 2.5}]}},
        ConfigError,
        "found training.epochs: 2.5",
    ),
    (
        {"tune": {"space": {"training.epochs": {"low": 1, "high": 6}}, "first": [{"training.epochs": True}]}},
        ConfigError,
        "found training.epochs: True",
    ),
    (
        {"tune": {"space": {"training.epochs": [1, 2]}, "first": [{"training.epochs": True}]}},
        ConfigError,
        "found training.epochs: True",
    ),
    (
        {"logs": {"a": {"simulate": {}, "tasks": ["buy"]}}},
        ConfigError,
        r"logs\.a\.tasks: the best reachable is known where 'click' is a task",
    ),
    (
        {"logs": {"a": {"simulate": {}, "tasks": [{"name": "click", "label": "click"}]}}},
        ConfigError,
        r"logs\.a: labels are columns of the world's exposure log, found its event log; set `data\.form: exp",
    ),
    (
        {"logs": {"a": {"simulate": {"repeats": 0.5}}}},
        ConfigError,
        r"logs\.a\.data\.history: the best reachable of a world with lives, .* found cut; set `moment`",
    ),
    (
        {"logs": {"a": {"simulate": {"repeats": 0.5}, "data": {"history": "moment"}}}, "topn": {}},
        ConfigError,
        "topn: the best reachable lists of a world with lives, .* leave out `topn`",
    ),
    (
        {"logs": {"a": {"simulate": {"uniform": 0.1}}}},
        ConfigError,
        r"logs\.a\.data\.form: the best reachable of a world with `uniform`, `popular_first` or several",
    ),
    (
        {"logs": {"a": {"simulate": {}, "data": {"timezone": "Asia/Shanghai"}}}},
        ConfigError,
        r"logs\.a\.data\.timezone: the times of a simulated log are UTC, found Asia/Shanghai; leave it out",
    ),
    (
        {"tune": {"first": [{"training.epochs": 2}], "trials": 1}},
        ConfigError,
        "more than the 1 points of `first`, found 1",
    ),
    ({"graph": {"seed": 3}}, ConfigError, "graph.seed follows the comparison's `seeds`"),
    (
        {"logs": {"a": {"negatives": {"training_seed": 3}}}},
        ConfigError,
        "logs.a.negatives.training_seed follows",
    ),
    ({"training": {"monitor": "bye.auc"}}, TrainingError, "did you mean 'buy.auc'"),
]


@pytest.mark.parametrize(("changes", "error", "sentence"), WRONG)
def test_mistakes_are_named_before_any_work(
    raw: dict[str, Any], tmp_path: Path, changes: dict, error: type, sentence: str
):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw | changes))
    with pytest.raises(error, match=sentence):
        experiments.compare(tmp_path / "c.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_misspelt_section_of_a_run_s_file_is_named(raw: dict[str, Any], tmp_path: Path):
    (tmp_path / "run.yaml").write_text("grahp: {}")
    with pytest.raises(ConfigError, match=r"run.yaml: unknown key 'grahp'; did you mean 'graph'"):
        experiments.compare(settings(raw, logs={"a": {"run": str(tmp_path / "run.yaml")}}), tmp_path / "out")


def test_a_part_that_does_not_exist_is_named(raw: dict[str, Any], tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean 'shared-bottom'"):
        experiments.compare(settings(raw), tmp_path / "out", models=["shared"])
    with pytest.raises(ConfigError, match="seeds: "):
        experiments.compare(settings(raw), tmp_path / "out", seeds=[7])


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "examples").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_comparison_of_the_examples_is_valid(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if "models" not in yaml.safe_load(path.read_text()) or "logs" not in yaml.safe_load(path.read_text()):
        pytest.skip("a run's settings")
    monkeypatch.chdir(path.parents[1])
    plan = Plan(load_comparison(path), tmp_path)
    check(plan, plan.cells)
    assert plan.cells


@pytest.mark.parametrize("name", ["arena-tmall", "arena-worlds", "arena-exposures", "arena-kuairand"])
def test_every_baseline_is_in_the_arenas(name: str):
    settings = load_comparison(Path(__file__).parents[2] / "examples" / f"{name}.yaml")
    tables = settings.tables
    linear = {"logistic", "rates"}  # these read what was shown and not done
    untrained = {"popularity", "history", "constant"}  # what a first run is compared with
    baselines = PRESETS.keys() - linear - untrained
    assert baselines | (linear if name == "arena-kuairand" else set()) <= set(tables["graph"].models)
    assert {"mgoe", "shared-bottom-knots", *(f"{baseline}+mgoe" for baseline in baselines - {"mgoe"})} == {
        *tables["experts"].models
    }
    [bent] = [
        model
        for model in settings.models
        if not isinstance(model, str) and model.name == "shared-bottom-knots"
    ]
    assert tuple(bent.options["knots"]) == MGOEOptions().knots


def test_the_same_worlds_are_compared_on_both_forms_of_log():
    events, exposures = (
        load_comparison(Path(__file__).parents[2] / "examples" / f"arena-{name}.yaml").logs
        for name in ("worlds", "exposures")
    )
    assert exposures.keys() - events.keys() == {"ranked"}
    for name, log in events.items():
        assert (exposures[name].simulate, exposures[name].split) == (log.simulate, log.split)


def test_a_log_whose_best_is_not_known_is_refused_before_any_work(raw: dict[str, Any], tmp_path: Path):
    with pytest.raises(ConfigError, match=r"logs\.tiny\.data\.timezone"):
        experiments.compare(settings(raw, data={"timezone": "Asia/Shanghai"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_variant_lies_above_what_was_tuned(raw: dict[str, Any]):
    plan = Plan(settings(raw), Path("nowhere"))
    tuned = plan.variants["mgoe:random"].settings(
        {"training": {"epochs": 9}, "options": {"tau": 2, "width": 8}}
    )
    assert (tuned.options["tau"], tuned.options["width"], tuned.training["epochs"]) == (0.5, 8, 9)


def test_logs_that_say_auto_have_what_the_rules_choose_for_each(world: Path, tmp_path: Path):
    plain = {"data": {"log": str(world / "events")}, "tasks": ["click", "buy"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(deep_merge(plain, {"split": AUTO["split"]})))
    given = {
        "logs": {
            "mine": {"run": str(tmp_path / "mine.yaml"), "training": {"epochs": 3}},
            "buys": deep_merge(plain, {"tasks": ["buy"], "split": {"cuts": [0.4, 0.6, 0.8]}}),
            "drawn": {"simulate": {"users": 50}, "training": {"batch_size": 64, "epochs": 2}},
        },
        "models": ["mgoe"],
        "training": {"batch_size": "auto", "epochs": "auto"},
    }
    (tmp_path / "arena.yaml").write_text(yaml.safe_dump(given))
    found = with_choices(load_comparison(tmp_path / "arena.yaml"))
    logs = {name: log.settings(0) for name, log in Plan(found, tmp_path).logs.items()}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(deep_merge(plain, AUTO)))
    alone = read_settings(tmp_path / "all.yaml")
    assert logs["mine"].split == alone.split
    assert logs["mine"].training.batch_size == alone.training.batch_size == 256
    assert (logs["mine"].training.epochs, logs["buys"].training.epochs) == (3, alone.training.epochs)
    assert logs["buys"].split.cuts == [0.4, 0.6, 0.8]
    (tmp_path / "stored.yaml").write_text(dump_settings(found))
    assert with_choices(load_comparison(tmp_path / "stored.yaml")) == found


def test_a_log_that_is_to_be_drawn_has_no_auto(raw: dict[str, Any], tmp_path: Path):
    drawn = settings(raw, logs={"w": {"simulate": {"users": 50}}}, training={"epochs": "auto"})
    with pytest.raises(ConfigError, match=r"logs.w: training.epochs: .* found 'auto'"):
        experiments.compare(drawn, tmp_path / "out")
