"""Users who are erased: the rest is as it would be without them, and nothing remains but what is stated."""

import pickle
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe._util.files import exclusive
from mgoe.bundle import Bundle, seal
from mgoe.bundle.training_state import replay_of, state_folder
from mgoe.config import RetrievalSettings, dump_settings, load_settings
from mgoe.data import Prepared
from mgoe.data.erasures import Erasures
from mgoe.errors import BundleError, ConfigError, DataError, EventError, OutputError
from mgoe.evaluation import read_rows
from mgoe.features import View
from mgoe.graph import MacroGraph, build_graph
from mgoe.graph.build.rate_counter import RECORDS
from mgoe.lifecycle import CycleSettings, Registry, Sources, run_cycle, update
from mgoe.lifecycle.erased_bundle import held_by, user_tables, without
from mgoe.lifecycle.erasure import Deployment, erase, verify
from mgoe.pipeline.stages import source_of
from mgoe.retrieval import Retrieval
from mgoe.serving import Event, open_log
from mgoe.serving.events.answer_log import Answer, AnswerLog
from mgoe.serving.events.log import every
from mgoe.serving.events.stores import with_query
from mgoe.serving.scoring.engine import Engine
from mgoe.serving.scoring.runtime import Runtime
from mgoe.training import WEIGHTS, load_checkpoint
from tests.effort import up_to
from tests.graph.histories import contents, differences
from tests.lifecycle.test_taken import requests, take
from tests.serving.events.stores import Server
from tests.sharing import Shared

RUNS = {"events": "finished", "exposures": "shown"}
"""Fixture of a run on a log of each form."""
SOME = 12
"""Users whom a property test erases some of."""
KEYS = "keys.pickle"
"""What a store on Redis has in its deployment's folder."""


@pytest.fixture(scope="module", params=["events", "exposures"])
def run(request: pytest.FixtureRequest) -> Path:
    """A run on a log of each form, with all snapshots."""
    return request.getfixturevalue(RUNS[request.param])


def with_retrieval(bundle: Path, out: Path) -> Bundle:
    """A copy of a bundle, with candidates to retrieve and what its next training needs."""
    shutil.copytree(state_folder(bundle), state_folder(Path(shutil.copytree(bundle, out))))
    opened = Bundle.open(out)
    how = RetrievalSettings(candidates=20)
    Retrieval.build(opened.view, out / "retrieval", how)
    settings = opened.settings.model_copy(update={"retrieval": how})
    (out / "settings.yaml").write_text(dump_settings(settings))
    (out / "bundle.json").unlink()
    seal(out, opened.manifest, settings, read_rows(out / "metrics.json"))
    return Bundle.open(out)


def rebuilt(run: Path, gone: set[int], out: Path) -> MacroGraph:
    """The graph of the rows of all other users, with the same macro nodes."""
    prepared, settings = Prepared.open(run / "data"), load_settings(run / "settings.yaml")
    source = source_of(settings, prepared)
    shown = source.exposures
    if shown is not None:
        shown = replace(shown, records=shown.records.filter(~shown.records.user.isin(gone)))
    history = source.history.filter(~source.history.user.isin(gone))
    left = replace(source, history=history, exposures=shown, facts=source.read_facts())
    return build_graph(left, settings.graph, out, keep=MacroGraph.open(run / "graph"))


def remains_in(bundle: Bundle) -> list[str]:
    """Return what a bundle, and what is kept for its next training, hold of users whose ids were removed."""
    gone, graph, size = bundle.encoders.users.unused, bundle.graph.latest, bundle.model.spec.n_users
    own, side = gone[gone < size], bundle.encoders.user_side
    cleared, records, memory = side.without(gone), bundle.graph.path / RECORDS, replay_of(bundle)
    categories = {} if graph.rates is None else graph.rates.categories
    held = {f"features of users: {name}": one != cleared.arrays[name] for name, one in side.arrays.items()}
    held |= {
        name: values[gone]
        for name, values in graph.arrays.items()
        if name[0] == "u" and values.dtype.kind == "f"
    }
    held |= {
        name: np.maximum(values[gone[gone < len(values)]], 0)
        for name, values in categories.items()
        if name.startswith("users.")
    }
    held |= {
        "names of users": [name is not None for name in side.names_of(gone)],
        "pairs": np.diff(graph.arrays["pairs.indptr"])[gone],
        "recent users": np.isin(graph.arrays["recent_users"], gone),
    }
    if records.exists():
        held["exposures"] = np.isin(pq.read_table(records, columns=["user"])["user"].to_numpy(), gone)
    if memory is not None:
        keys = [name for name in ("user", "recent_users") if name in memory.rows]
        held |= {f"rows to replay: {name}": np.isin(memory.rows[name].numpy(), own) for name in keys}
    weights = load_checkpoint(bundle.path / WEIGHTS)[0]
    tables = ((name, weights[name]) for name in user_tables(bundle.model))
    held |= {f"{WEIGHTS}: {name}": (rows[own] - rows[-1]).numpy() for name, rows in tables}
    return [name for name, values in held.items() if np.any(values)]


# --- a bundle ---


@up_to(2)
@given(places=st.sets(st.integers(0, SOME - 1), min_size=1, max_size=4))
def test_a_bundle_without_users_is_one_that_never_knew_them(run: Path, places: set[int]):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = with_retrieval(run / "bundle", folder / "bundle")
        everyone = np.arange(bundle.size("user"))
        gone = {int(user) for user in everyone[:: len(everyone) // SOME][sorted(places)]}
        users = [str(user) for user in bundle.ids("user", np.array(sorted(gone)))]
        without(bundle, users, folder / "out", 1)
        found, never = Bundle.open(folder / "out"), rebuilt(run, gone, folder / "graph")
        assert differences(contents(found.graph, 0), contents(never, len(never.manifest.cuts) - 1)) == []
        how = RetrievalSettings(candidates=20)
        built = Retrieval.build(View.of(never.latest), folder / "built", how)
        for file in built.path.iterdir():
            assert file.read_bytes() == (found.path / "retrieval" / file.name).read_bytes(), file.name

        other = Path(shutil.copytree(bundle.path, folder / "other"))
        shutil.rmtree(other / "graph")
        never.save_latest(other / "graph")
        left = np.setdiff1d(everyone, sorted(gone))
        pairs = bundle.ids("user", np.repeat(left, 3)), bundle.ids("item", np.arange(3 * len(left)) % 90)
        mine, theirs = (one.predict(*pairs) for one in (found, Bundle.open(other, verify=False)))
        pd.testing.assert_frame_equal(mine, theirs, rtol=1e-5)

        assert found.manifest.erased == 1
        found.manifest = found.manifest.model_copy(update={"erased": 0})
        assert held_by(Erasures(folder).with_users(users), found) == []
        assert remains_in(found) == []
        assert (found.manifest.lineage.parent, found.manifest.lineage.trained) == (bundle.name, "erased")
        unseen = found.predict("nobody" if pa.types.is_string(found.encoders.users.type) else -5, [*range(5)])
        pd.testing.assert_frame_equal(
            found.predict(users[0], [*range(5)])[[*found.tasks]], unseen[[*found.tasks]]
        )


def test_what_is_left_in_a_bundle_is_found(shown: Path, tmp_path: Path):
    """Of each part that an erasure clears, one that still holds the user is noticed."""
    bundle = with_retrieval(shown / "bundle", tmp_path / "bundle")
    users = [str(user) for user in bundle.ids("user", np.array([3]))]
    without(bundle, users, tmp_path / "out", 1)
    out, state = tmp_path / "out", state_folder(tmp_path / "out")
    assert remains_in(Bundle.open(out)) == []
    for part, what in {
        "graph/exposures.parquet": "exposures",
        "graph/categories0.npy": "users.community",
        "graph/snapshots/00/user_vectors.npy": "user_vectors",
        "graph/snapshots/00/pairs.indptr.npy": "pairs",
        "user_side/values-0.npy": "features of users: community",
        "replay.safetensors": "rows to replay: user",
    }.items():
        file, former = (state, state_folder(bundle.path)) if part.startswith("replay") else (out, bundle.path)
        kept = (file / part).read_bytes()
        shutil.copyfile(former / part, file / part)
        assert what in remains_in(Bundle.open(out, verify=False)), part
        (file / part).write_bytes(kept)
    shutil.copyfile(bundle.path / "users.parquet", out / "users.parquet")
    known = Bundle.open(out, verify=False)
    known.manifest = known.manifest.model_copy(update={"erased": 0})
    assert held_by(Erasures(tmp_path).with_users(users), known) == users


# --- a deployment ---


class Deployed:
    """A registry of two versions, and a state with live events, exposures, labels and the log of a shadow.

    Args:
        folder: Where they are.
        run: What the first version is from; without one, the folder was made before.
        redis: What holds the store in place of the state.
    """

    def __init__(self, folder: Path, run: Path | None = None, redis: str | None = None):
        self.registry, self.state, self.redis = Registry(folder / "bundles"), folder / "state", redis
        self.logs = self.state if redis is None else with_query(redis, state=self.state)
        first = (
            Bundle.open(folder / "first") if run is None else with_retrieval(run / "bundle", folder / "first")
        )
        known, last = first.ids("user", np.arange(40)), first.graph.manifest.last
        self.user, self.other, self.newcomer = str(known[5]), str(known[2]), "999999999"
        if run is None:
            return
        self.registry.promote(self.registry.add(first.path))
        if first.settings.form == "exposures":  # taken long ago, so before all else
            take(open_log(self.logs), first, requests(first, 60)).close()
        log = open_log(self.logs)
        rows = [(user, item, last + 10 * k) for k, user in enumerate(known[:6]) for item in (1, 2)]
        log.append([Event(user, item, "click", time, f"{user}.{item}") for user, item, time in rows])
        log.append([Event(int(self.newcomer), 3, "click", last + 900)])
        log.close()
        update(first.path, Sources(events=self.logs), folder / "second", groups="keep")
        self.registry.promote(self.registry.add(folder / "second"), force="a test")
        answers = AnswerLog(self.state)
        scored = {"served": "a", "shown": 1, "scores": [[0.1]], "served_scores": [[0.1]]}
        for user in known[:6]:
            one = Answer(last, "r", "rank", str(user), None, None, None, None, False, "answer", "a", "ok",
                         None, 1, ["1"])  # fmt: skip
            answers.append(one, one._replace(use="shadow", version="b", **scored))
        answers.close()

    @property
    def where(self) -> dict[str, Any]:
        return {"registry": self.registry.path, "state": self.state, "redis": self.redis}

    @property
    def current(self) -> Bundle:
        return Bundle.open(self.registry.place("current"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    held = Server(tmp_path_factory.mktemp("redis"))
    yield held
    held.kill()


@pytest.fixture(params=["events", "exposures"])
def deployed(request: pytest.FixtureRequest, shared: Shared, tmp_path: Path) -> Deployed:
    """One on a log of each form, which a test may change, or one with its store on Redis."""
    on_redis = request.param == "redis"
    server = request.getfixturevalue("server") if on_redis else None
    run = request.getfixturevalue("shown" if on_redis else RUNS[request.param])

    def make(path: Path) -> None:
        Deployed(path, run, server and with_query(server.url, prefix="made"))
        if server is not None:
            (path / KEYS).write_bytes(pickle.dumps(server.take("made")))

    made = shared(f"deployed-{request.param}", make)
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    if server is None:
        return Deployed(tmp_path)
    server.put(tmp_path.name, pickle.loads((tmp_path / KEYS).read_bytes()))
    return Deployed(tmp_path, redis=with_query(server.url, prefix=tmp_path.name))


on_events = pytest.mark.parametrize("deployed", ["events"], indirect=True)
everywhere = pytest.mark.parametrize("deployed", ["events", "exposures", "redis"], indirect=True)


def users_of(state: Path | str) -> set[str]:
    """The users of what a service has taken."""
    log = open_log(state)
    found = {str(event.user) for _, event in every(log)}
    found |= {row[3] for rows in log.rows(["click"], 0, 1 << 40, 1 << 62, 0) for row in rows}
    log.close()
    return found


@everywhere
def test_an_erasure_leaves_nothing_but_what_is_stated_and_changes_nobody_else(
    deployed: Deployed, said: pytest.LogCaptureFixture
):
    before, everyone = deployed.current, users_of(deployed.logs)
    form = before.settings.form
    marks, index = (
        [mark for mark, _ in every(open_log(deployed.logs))],
        before.indices("user", [deployed.other]),
    )
    assert deployed.user in everyone
    assert {*verify(**deployed.where, users=[deployed.user])["remains"]} >= {"events", "answers"}

    done = erase(**deployed.where, users=[deployed.user, deployed.newcomer])
    after = deployed.current
    assert verify(**deployed.where)["remains"] == {}
    assert users_of(deployed.logs) == everyone - {deployed.user, deployed.newcomer}
    assert done["records"]["events"] == 3
    if form == "exposures":
        assert done["records"]["exposures"] >= 4
        assert done["records"]["labels"] >= 12
    assert done["records"]["answers"] == 2
    assert len(done["removed"]) == 2
    assert (done["served"], deployed.registry.aliases) == ([], {"current": after.name})
    assert done["full_training"] > before.manifest.fully_trained_until[:10]
    assert Counter(one.use for one in AnswerLog(deployed.state, make=False)) == {"answer": 5, "shadow": 5}

    again = erase(**deployed.where, users=[deployed.user, deployed.newcomer])
    assert (again["users"], again["version"], {*again["records"].values()}) == (0, after.name, set())
    assert said.messages[-1] == "nothing is left to erase in what was read, so no version was made"
    assert again["not_reached"] == ["files of the log (--log)"]
    with Deployment(deployed.registry.path, None, log=["log"]) as alone:
        assert alone.not_reached == [
            "events, exposures and labels (--state or --redis)",
            "the log of answers (--state)",
        ]
    assert after.indices("user", [deployed.other]) == index
    log = open_log(deployed.logs)
    for mark in marks:
        log.check(mark)
    log.append([Event(int(deployed.user), 5, "click", time.time_ns() // 1000 + 10**9)])  # a user comes back
    log.close()
    new = update(after.path, Sources(events=deployed.logs), deployed.registry.path.with_name("third"))
    assert new.indices("user", [deployed.user]) == after.size("user")
    assert verify(**deployed.where)["remains"] == {}
    deployed.registry.add(new.path)
    assert verify(**deployed.where)["remains"] == {}


def test_the_list_is_applied_again_to_what_comes_back(deployed: Deployed, tmp_path: Path):
    first = deployed.registry.add(tmp_path / "first")
    state, registry = (shutil.copytree(one, tmp_path / f"{one.name}.copy", symlinks=True)
                       for one in (deployed.state, deployed.registry.path))  # fmt: skip
    erase(**deployed.where, users=[deployed.user])
    everyone = users_of(deployed.state)
    with pytest.raises(BundleError, match=r"must not hold users who were erased, found 1; run `mgoe erase`"):
        deployed.registry.add(tmp_path / "first")

    shutil.rmtree(deployed.state)
    shutil.copytree(state, deployed.state)
    assert deployed.user in users_of(deployed.state)
    settings = CycleSettings(registry=deployed.registry.path, state=str(deployed.state), rows=10**6)
    run_cycle(settings, lambda step: None)
    assert users_of(deployed.state) == everyone

    shutil.rmtree(deployed.registry.path)
    shutil.copytree(registry, deployed.registry.path, symlinks=True)
    with pytest.raises(BundleError, match="must not hold users who were erased"):
        run_cycle(settings, lambda step: None)
    with pytest.raises(BundleError, match="must not hold users who were erased"):
        deployed.registry.rollback()
    with pytest.raises(BundleError, match="must not hold users who were erased"):
        deployed.registry.promote(first, force="it was better")
    assert {*verify(**deployed.where)["remains"]} == {
        str(deployed.registry.place(one)) for one in (first, "current")
    }
    done = erase(**deployed.where)
    assert (done["users"], len(done["removed"])) == (0, 2)
    assert verify(**deployed.where)["remains"] == {}
    assert erase(**deployed.where)["version"] == done["version"]


@on_events
def test_a_version_that_is_served_stays_until_the_service_has_left_it(deployed: Deployed, tmp_path: Path):
    log = open_log(deployed.state)
    service = Engine(deployed.registry.path / "current", log, tmp_path / "made", Runtime(engine="torch"))
    assert service.live.look_up("user", [int(deployed.newcomer)]) >= 0
    former = service.name
    done = erase(**deployed.where, users=[deployed.user, deployed.newcomer])
    assert done["served"] == [former]
    assert former in str(verify(**deployed.where)["remains"])
    with pytest.raises(BundleError, match="has no previous version"):
        deployed.registry.rollback()
    service = Engine(deployed.registry.path / "current", log, tmp_path / "made", Runtime(engine="torch"))
    assert service.live.look_up(
        "user", [int(one) for one in (deployed.user, deployed.newcomer)]
    ).tolist() == [-1, -1]
    assert erase(**deployed.where)["removed"] == [former]
    assert verify(**deployed.where)["remains"] == {}
    log.close()


@pytest.mark.parametrize("deployed", ["exposures", "redis"], indirect=True)
@pytest.mark.parametrize(
    "step",
    [
        "serving.events.log.ServiceLog.erase",
        "serving.events.{log}._clean",
        "serving.events.answer_log.AnswerLog.erase",
        "lifecycle.registry.Registry.take_erased",
    ],
)
def test_an_erasure_that_was_stopped_is_finished_by_the_same_command(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, step: str
):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    users, log = [deployed.user, deployed.newcomer], "log.ServiceLog"
    if deployed.redis is not None:
        log = "redis_log.RedisLog"
    with monkeypatch.context() as patched:
        patched.setattr(f"mgoe.{step.format(log=log)}", stop)
        with pytest.raises(KeyboardInterrupt):
            erase(**deployed.where, users=users)
    before = deployed.current.name
    assert erase(**deployed.where)["version"] != before
    assert verify(**deployed.where, users=users)["remains"] == {}


@on_events
def test_an_erasure_that_cannot_be_made_changes_nothing(deployed: Deployed, tmp_path: Path):
    before = {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(DataError, match=r"user '5' is in no version, store or named log; leave it out"):
        erase(**deployed.where, users=[deployed.user, "5"])
    with pytest.raises(EventError, match="ids of users are whole numbers"):
        erase(**deployed.where, users=["Smith"])
    with pytest.raises(ConfigError, match="must name who is erased, found nobody"):
        erase(**deployed.where)
    rule = r"another process .* runs a cycle there"
    cycle = exclusive(deployed.registry.path / ".cycle", "a cycle", "runs")
    with cycle, pytest.raises(OutputError, match=rule):
        erase(**deployed.where, users=[deployed.user])
    after = {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    held = [{name: one for name, one in now.items() if one and "-shm" not in name} for now in (before, after)]
    assert held[0] == held[1]


# --- files of the log ---


@on_events
def test_a_log_loses_the_rows_of_the_users_and_nothing_else(deployed: Deployed, tmp_path: Path):
    rows = pd.DataFrame({"user_id": [int(deployed.user), 7, 7], "text": ["a", "b", ""], "x": [1.5, None, 2]})
    file, table = tmp_path / "log.parquet", pa.Table.from_pandas(rows)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"made by": b"us"}), file)
    done = erase(**deployed.where, users=[deployed.user], log=[str(file)])
    assert done["rows"] == {str(file): 1}
    left = rows.iloc[1:].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_parquet(file).reset_index(drop=True), left)
    assert pq.read_schema(file).metadata[b"made by"] == b"us"
    assert verify(**deployed.where, log=[str(file)])["remains"] == {}
    rows.to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(DataError, match=r"log\.csv: must be Parquet, found CSV"):
        verify(**deployed.where, log=[str(tmp_path / "log.csv")])
    rows.drop(columns="user_id").to_parquet(file)
    with pytest.raises(DataError, match=r"must have the column 'user_id'"):
        verify(**deployed.where, log=[str(file)])
