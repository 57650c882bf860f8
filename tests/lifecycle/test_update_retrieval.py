"""What candidates are retrieved from is computed again by a refresh, with the chosen quotas and blend."""

import shutil
from pathlib import Path

import mgoe
from mgoe.bundle import seal
from mgoe.config import RetrievalSettings
from mgoe.evaluation import read_rows
from mgoe.lifecycle import Sources, update
from mgoe.retrieval import Blend, Retrieval
from mgoe.serving import Event, open_log

QUOTAS = {"own": 3, "item_to_item": 9, "recent": 4, "popular": 4}


def test_a_refreshed_bundle_retrieves_as_one_built_from_all_events(finished: Path, tmp_path: Path):
    path = Path(shutil.copytree(finished / "bundle", tmp_path / "bundle"))
    bundle = mgoe.load(path)
    assert bundle.retrieval is None
    how = RetrievalSettings.model_validate({"candidates": 20, "quotas": QUOTAS})
    blend = Blend(log_odds=0.1, sampling=0.2, linked=0.3, session=0.4)
    Retrieval.build(bundle.view, path / "retrieval", how, blend=blend)
    settings = bundle.settings.model_copy(update={"retrieval": RetrievalSettings(candidates=20)})
    (path / "settings.yaml").write_text(mgoe.config.dump_settings(settings))
    (path / "bundle.json").unlink()
    seal(path, bundle.manifest, settings, read_rows(path / "metrics.json"))
    log, last = open_log(tmp_path / "state"), bundle.graph.manifest.last
    log.append([Event(user, 20_000, "click", last + user, f"e{user}") for user in range(10_000, 10_050)])
    new = update(path, Sources(events=tmp_path / "state"), tmp_path / "new", groups="keep")
    log.close()
    assert new.retrieval is not None
    assert new.retrieval.quotas == QUOTAS
    assert new.retrieval.blend == blend
    built = Retrieval.build(new.view, tmp_path / "built", how, blend=blend)
    for file in built.path.iterdir():
        assert file.read_bytes() == (new.path / "retrieval" / file.name).read_bytes(), file.name
    [item] = new.indices("item", [20_000])
    assert item in new.retrieval.candidates(new.view, -1)
