"""The JSON of commands whose work is tested elsewhere: what they print of it."""

import json
from pathlib import Path

import pytest

from mgoe import datasets, experiments, lifecycle
from mgoe.bundle import Bundle
from mgoe.datasets import Fetched
from mgoe.evaluation import read_rows
from mgoe.lifecycle import Bounds, Release, erasure, taken
from mgoe.serving.events.answer_log import AnswerLog
from mgoe.serving.scoring import onnx_export
from tests.cli.conftest import Mgoe
from tests.lifecycle.fakes import write


def test_a_registry(mgoe: Mgoe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each answer is checked by `mgoe`."""
    folder, versions = tmp_path / "registry", [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    names = [write(versions[0], "a")]
    names += [write(version, version.name, names[0], "refreshed") for version in versions[1:]]
    added = [json.loads(mgoe("registry", "add", folder, version, "--json").stdout) for version in versions]
    assert [one["version"] for one in added] == names
    mgoe("registry", "promote", folder, names[0], "--force", "why", "--json")
    promoted = mgoe("registry", "promote", folder, names[1], "--force", "why", "--json")
    aliases = {"candidate": names[2], "current": names[1], "previous": names[0]}
    assert json.loads(promoted.stdout) == {"version": names[1], "aliases": aliases}
    listed = json.loads(mgoe("registry", "list", folder, "--json").stdout)
    assert [(one["version"], one["aliases"], one["parent"]) for one in listed] == [
        (names[0], ["previous"], None),
        (names[1], ["current"], names[0]),
        (names[2], ["candidate"], names[0]),
    ]
    found = Release(
        candidate=names[2], baseline=names[1], time="", rows=0, approved=True, reasons=[], bounds=Bounds()
    )
    monkeypatch.setattr(lifecycle, "window_of", lambda *_: ())
    monkeypatch.setattr(lifecycle, "check_release", lambda *_: found)
    tested = json.loads(mgoe("registry", "test", folder, "--state", "state", "--json").stdout)
    assert tested == found.model_dump(mode="json")
    shown = json.loads(mgoe("registry", "show", folder, "candidate", "--json").stdout)
    assert (shown["lineage"], shown["release"]) == ([names[2], names[0]], tested)
    assert [change["action"] for change in shown["changes"]] == ["add"]
    rolled_back = json.loads(mgoe("registry", "rollback", folder, "--json").stdout)
    assert rolled_back["aliases"] == {"candidate": names[2], "current": names[0]}
    for what in (["reject", folder, names[2], "--reason", "why"], ["allow", folder, names[2]]):
        changed = json.loads(mgoe("registry", *what, "--json").stdout)
        assert changed == {"version": names[2], "aliases": {"current": names[0]}}
        listed = json.loads(mgoe("registry", "list", folder, "--json").stdout)
        expected = "why" if what[0] == "reject" else None
        assert [one["rejected"] for one in listed] == [None, "it was rolled back", expected]
    assert "it was rolled back" in " ".join(mgoe("registry", "list", folder).stdout.split())
    refused = mgoe("registry", "promote", folder, names[1])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "is rejected: it was rolled back; allow it, or promote it by force, with the reason" in " ".join(
        refused.stderr.split()
    )
    assert json.loads(mgoe("registry", "prune", folder, "--keep", 0, "--json").stdout)["removed"] == names[1:]


def test_new_bundles(mgoe: Mgoe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bundle = Bundle.open(finished / "bundle")
    monkeypatch.setattr(lifecycle, "update", lambda *_, **__: bundle)
    monkeypatch.setattr(taken, "export", lambda *_: 3)
    monkeypatch.setattr(onnx_export, "export_whole", lambda *_: None)
    state = ("--state", "state")
    updated = json.loads(mgoe("update", bundle.path, *state, "--out", "new", "--json").stdout)
    assert (updated["lineage"], updated["due"]) == (bundle.manifest.lineage.model_dump(mode="json"), [])
    AnswerLog(tmp_path / "answered").close()
    empty = mgoe("answers", tmp_path / "answered", "--out", tmp_path / "answers.parquet", "--json")
    assert json.loads(empty.stdout)["rows"] == 0
    none = mgoe("answers", tmp_path / "nothing", "--out", tmp_path / "answers.parquet")
    assert none.exit_code == 2
    assert "must hold the log of answers, found none" in none.stderr
    for command in (["exposures"], ["events"], ["log", "export", "--kind", "events"]):
        written = mgoe(*command, bundle.path, *state, "--out", "log.parquet", "--json")
        assert json.loads(written.stdout) == {"path": "log.parquet", "rows": 3}
    unknown = mgoe("log", "export", "--kind", "answers", bundle.path, *state, "--out", "log.parquet")
    assert unknown.exit_code == 2
    assert "'answers' is not one of 'events', 'exposures'" in " ".join(unknown.stderr.split())
    exported = mgoe("export", bundle.path, "--onnx", "model.onnx", "--json")
    assert json.loads(exported.stdout) == {"path": "model.onnx", "compared": []}


def test_an_erasure(mgoe: Mgoe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The ids are those of the options and of the file; with `--verify`, what remains is exit code 3."""
    stated, asked = {"stated": ["weights"], "full_training": "2026-06-01", "not_reached": ["logs"]}, []
    done = {
        "users": 3,
        "version": "3f9a",
        "records": {"events": 2},
        "rows": {},
        "removed": ["61c0"],
        "served": [],
    }

    def erased(registry: Path, users: list[str], **where: object) -> dict[str, object]:
        asked.append((users, where))
        return done | stated

    monkeypatch.setattr(erasure, "erase", erased)
    remains = {"remains": {"events": ["2 of users"]}} | stated
    monkeypatch.setattr(erasure, "verify", lambda *_, **__: remains)
    (tmp_path / "ids").write_text("7\n\n8 \n")
    where = ("--registry", "bundles", "--json")
    found = mgoe("erase", *where, "--user", "5", "--users", tmp_path / "ids")
    assert json.loads(found.stdout) == done | stated
    [(users, given)] = asked
    assert users == ["5", "7", "8"]
    assert (given["state"], given["redis"]) == (None, None)
    checked = mgoe("erase", *where, "--verify")
    assert (checked.exit_code, json.loads(checked.stdout)) == (3, remains)


def test_one_model(mgoe: Mgoe, config: Path, finished: Path, monkeypatch: pytest.MonkeyPatch):
    rows = read_rows(finished / "metrics.json")
    monkeypatch.setattr(experiments, "train", lambda *_, **__: rows)
    found = json.loads(mgoe("train", config, "--out", "run", "--json").stdout)
    assert found["metrics"] == json.loads((finished / "metrics.json").read_text())


def test_a_fetched_data_set(mgoe: Mgoe, monkeypatch: pytest.MonkeyPatch):
    found = Fetched(name="taobao", path="raw", files=["UserBehavior.csv"])
    monkeypatch.setattr(datasets, "fetch", lambda *_, **__: found)
    assert json.loads(mgoe("data", "fetch", "taobao", "--out", "raw", "--json").stdout) == found.model_dump()
