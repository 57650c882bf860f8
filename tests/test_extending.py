"""The package of docs/extending.md, and extensions that break a rule."""

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mgoe
from mgoe import experiments
from mgoe.bundle import Bundle
from mgoe.config import GENERATOR_NAMES, RunSettings, TopNSettings, make_settings, named, names
from mgoe.datasets import find, prepare
from mgoe.errors import BundleError, ConfigError
from mgoe.models import PRESETS, resolve
from mgoe.retrieval import GENERATORS
from mgoe.serving import Event, ServiceLog, open_log
from mgoe.serving.events.stores import with_query
from mgoe.topn import Budget, Events, find_baseline

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
PACKAGE = PAGE.partition("\n## A package with one of each\n")[2]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PACKAGE, re.MULTILINE | re.DOTALL)


def install(folder: Path, package: str, points: Mapping[str, Mapping[str, str]], code: str = "") -> None:
    """Write an installed package, as pip leaves it."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(code, encoding="utf-8")
    info = folder / f"mgoe_{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mgoe-{package}\nVersion: 1.0\n")
    lines = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in of.items())
        for group, of in points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where the package of the page is installed."""
    folder, [metadata] = tmp_path_factory.mktemp("installed"), blocks("toml")
    points = tomllib.loads(metadata)["project"]["entry-points"]
    install(folder, "shop", points, "\n\n".join(blocks("python")))
    [template] = [block for block in blocks("yaml") if block.startswith("# $name")]
    (folder / "shop" / "configs").mkdir()
    (folder / "shop" / "configs" / "visits.published.yaml").write_text(template)
    return folder


@pytest.fixture
def installed(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(shop))
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has not imported the package."""
    monkeypatch.delitem(sys.modules, "shop", raising=False)


@pytest.mark.costly
def test_settings_alone_train_and_serve_with_extensions(
    installed: None, small: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said = yaml.safe_load(next(block for block in blocks("yaml") if "wider" in block))["models"]
    raw = small.model_dump(mode="json") | {
        "models": said[-1:],
        "retrieval": {"candidates": 9, "quotas": {"own": 3, "newest": 6}},
    }
    raw["evaluation"]["ranking_queries"] = 0
    experiments.run(make_settings(raw), tmp_path / "run")
    assert "shop" in sys.modules
    bundle = mgoe.load(tmp_path / "run" / "bundle")
    assert type(bundle.model).__name__ == "Wide"
    assert "gap" in bundle.model.inputs.dense.names
    [std] = bundle.model.spec.moments["gap"][1]
    assert std > 0
    found = bundle.retrieval.candidates(bundle.view, user=0)
    assert bundle.n_items - 1 in found or bundle.n_items - 1 in bundle.retrieval.own_items(bundle.view, 0).all
    assert len(bundle.recommend(bundle.ids("user", [0]), k=3))

    forget(monkeypatch)
    for part in ("model", "model_settings", "settings", "retrieval"):
        with pytest.raises(BundleError, match=r"'(wide|newest)'.*set MGOE_EXTENSIONS=shop, or import shop"):
            getattr(Bundle.open(bundle.path), part)
    assert "shop" not in sys.modules
    monkeypatch.setenv("MGOE_EXTENSIONS", "other, shop")
    again = Bundle.open(bundle.path)
    pairs = bundle.ids("user", [0, 1]), bundle.ids("item", [0, 1])
    assert again.predict(*pairs).equals(bundle.predict(*pairs))


def test_a_bundle_imports_no_class_by_its_path(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    bundle = Bundle.open(finished / "bundle")
    for base in ("evil:Model", "evil:Model+graph"):
        model = bundle.manifest.model.model_copy(update={"base": base})
        bundle.manifest = bundle.manifest.model_copy(update={"model": model})
        with pytest.raises(BundleError, match="the package 'evil' would be imported"):
            bundle.model  # noqa: B018


def test_a_baseline_of_an_extension(installed: None):
    [name] = TopNSettings(baselines=["latest"]).baselines
    events = Events(np.zeros(2, int), np.arange(2), np.zeros(2, int), np.array([9.0, 3.0]), (1, 2), 1)
    baseline = find_baseline(name)
    assert baseline.fit(events, baseline.start, 0, Budget())(np.arange(1)).argmax() == 1


def test_a_data_set_of_an_extension(installed: None, tmp_path: Path):
    (tmp_path / "raw").mkdir()
    rows = "user,item,day,what\n1,2,2026-01-01,view\n1,2,2026-01-02,buy\n"
    (tmp_path / "raw" / "visits.csv").write_text(rows)
    found = prepare(find("visits"), tmp_path / "raw", tmp_path / "out")
    assert found.rows == {"log/events.parquet": 2}
    assert make_settings(yaml.safe_load(Path(found.configs[0]).read_text())).task_names == ("view", "buy")


def test_a_store_of_an_extension(installed: None, tmp_path: Path):
    address = with_query(f"shelf://{tmp_path}", state=tmp_path)
    log = open_log(address)
    log.append([Event(42, 7, "view", 0)])
    log.close()
    assert len(ServiceLog(tmp_path / "shelf.sqlite").read()) == 1
    exposures = open_log(address)
    assert exposures.counts["exposures taken"] == 0
    exposures.close()


def test_names_of_settings_are_those_of_generators():
    assert (*GENERATORS,) == GENERATOR_NAMES


def test_names_are_checked_without_an_import(installed: None):
    assert names("mgoe.models", PRESETS)[-1] == "wide"
    with pytest.raises(
        ConfigError, match=r"quotas\.newst: must be a generator, found 'newst'; did you mean 'ne"
    ):
        make_settings(SETTINGS | {"retrieval": {"quotas": {"newst": 1}}})
    assert make_settings(SETTINGS | {"retrieval": {"quotas": {"newest": 1}}})
    with pytest.raises(ConfigError, match=r"topn\.baselines\.0: must be a baseline, found 'latst'; did you"):
        mgoe.config.check_settings(
            mgoe.config.ComparisonSettings,
            {"logs": {"one": {}}, "models": ["mgoe"], "topn": {"baselines": ["latst"]}},
        )
    with pytest.raises(
        ConfigError, match=r"inputs\.0: must be an input group, found 'gpa'; did you mean 'gap'"
    ):
        resolve(mgoe.config.ModelSettings(name="x", base="mmoe", inputs=("gpa",)))
    assert "shop" not in sys.modules


SETTINGS: dict[str, Any] = {"data": {"log": "clicks.parquet"}, "tasks": ["click"]}


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ({"mgoe.models": {"mmoe": "bad:A"}}, "mgoe-bad, mgoe.models: the name 'mmoe' is taken by mgoe;"),
        ({"mgoe.models": {"own": "nowhere:A"}}, "mgoe-bad, mgoe.models: 'nowhere:A' cannot be imported ("),
        ({"mgoe.models": {"own": "bad:B"}}, "mgoe-bad, mgoe.models: 'bad:B' cannot be imported ("),
        ({"mgoe.models": {"own": "bad"}}, "mgoe-bad, mgoe.models: 'bad' must be a type, found <module"),
        ({"mgoe.models": {"own": "bad:A"}}, "models.own: 'own' must name a subclass of"),
    ],
)
def test_a_wrong_extension_is_refused_in_one_sentence(
    points: dict[str, dict[str, str]], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(tmp_path, "bad", points, "class A: pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bad", raising=False)
    with pytest.raises(ConfigError) as error:
        resolve("mmoe" if "mmoe" in points["mgoe.models"] else "own")
    assert str(error.value).startswith(says)
    assert "\n" not in str(error.value)


def test_two_extensions_cannot_share_a_name(installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "worse", {"mgoe.stores": {"shelf": "worse:A"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"'shelf' is taken by mgoe-(shop|worse), mgoe\.stores"):
        named("mgoe.stores", {}, "shelf", object)


def test_whatever_an_extension_raises_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "loud", {"mgoe.data_sets": {"loud": "loud:A"}}, "raise RuntimeError('no\\nluck')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"'loud:A' cannot be imported \(RuntimeError: no luck\)"):
        find("loud")
