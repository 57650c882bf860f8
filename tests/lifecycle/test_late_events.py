"""An erased user does not return by what is late: at intake, in updates, full trainings and versions."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("httpx", reason="httpx is not installed: pip install httpx")

from mgoe.bundle import Bundle
from mgoe.bundle.membership import deployment_of
from mgoe.config import CLOCK_SKEW
from mgoe.errors import BundleError
from mgoe.lifecycle import Registry, Sources, registry, update
from mgoe.lifecycle.new_rows import learned_until
from mgoe.serving import Event, open_log
from mgoe.serving.events.exposure import ExposureReader
from mgoe.serving.events.log import every
from tests.cli.conftest import Mgoe
from tests.lifecycle.test_taken import LONG_AGO
from tests.serving.http.test_live_service import until
from tests.serving.served import Served, get, served

RUNS = {"events": "finished", "exposures": "shown"}
SECOND = 1_000_000


class Shop:
    """A registry of one version with its state."""

    def __init__(self, run: Path, folder: Path):
        self.run, self.folder = run, folder
        self.registry, self.state = Registry(folder / "bundles"), folder / "state"
        self.first = Bundle.open(run / "bundle")
        self.registry.promote(self.registry.add(run / "bundle"))
        self.where = ("--registry", self.registry.path, "--state", self.state)
        self.last = learned_until(self.first)
        self.gone, self.other = (int(user) for user in self.first.ids("user", np.array([5, 2])))

    @property
    def is_of_events(self) -> bool:
        return self.first.settings.form == "events"

    @property
    def current(self) -> Bundle:
        return Bundle.open(self.registry.place("current"))

    @property
    def erased_at(self) -> int:
        """When the last erasure was."""
        return json.loads(self.registry.path.with_name("bundles.erased.json").read_text())["erasures"][-1][
            "time"
        ]

    def knows(self, bundle: Bundle) -> list[bool]:
        """Whether a bundle knows the two users."""
        return (bundle.indices("user", [self.gone, self.other]) >= 0).tolist()

    def add(self, *rows: tuple[int, int]) -> None:
        """Write rows of users at moments into the store, as a service that knows of no erasure does."""
        log = open_log(self.state)
        log.append([Event(user, 3, "click", moment) for user, moment in rows])
        log.close()
        if not self.is_of_events:
            shown, reader = open_log(self.state), ExposureReader.of(self.first)
            raw = [{"user": user, "item": 4, "time": moment} for user, moment in rows]
            exposures = [
                reader.read_exposure(one, moment) for one, (_, moment) in zip(raw, rows, strict=True)
            ]
            labels = reader.read_labels({"user": self.other, "item": 4, "labels": {"click": 1}}, rows[0][1])
            shown.append((), exposures, labels, now=LONG_AGO)
            shown.close()

    def users(self) -> list[int]:
        """Users of the events in the store, in their order."""
        log = open_log(self.state)
        found = [event.user for _, event in every(log)]
        log.close()
        return [int(user) for user in found]


@pytest.fixture(params=["events", "exposures"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    return Shop(request.getfixturevalue(RUNS[request.param]), tmp_path)


on_events = pytest.mark.parametrize("shop", ["events"], indirect=True)


def counted(service: Served) -> dict[str, int]:
    """Records by what became of them, as Prometheus reads them."""
    lines = (line.rpartition(" ") for line in get(service.url + "/metrics").text.splitlines())
    name = "mgoe_events_total{outcome="
    return {key[len(name) + 1 : -2]: int(float(value)) for key, _, value in lines if key.startswith(name)}


def test_a_late_record_is_left_out_at_intake_and_others_of_its_request_are_taken(
    shop: Shop,
    mgoe: Mgoe,
):
    shop.add((shop.gone, shop.last + 1), (shop.other, shop.last + 2))
    with served(shop.registry.path / "current", shop.state) as service:
        assert mgoe("erase", *shop.where, "--user", shop.gone).exit_code == 0
        late, back = shop.erased_at - SECOND, shop.erased_at + CLOCK_SKEW + 1
        moments = [(shop.gone, late), (shop.other, late), (shop.gone, back), (shop.gone, -5)]

        def records(**more: Any) -> list[dict[str, Any]]:
            return [{"user": user, "item": 3, "time": str(pd.Timestamp(moment, unit="us"))} | more
                    for user, moment in moments]  # fmt: skip

        asked: dict[str, list[dict[str, Any]]] = {"events": records(behavior="click")}
        if not shop.is_of_events:
            asked |= {"exposures": records(), "labels": records(labels={"click": 1})}
        answer = service.take(**asked)  # before the service has taken the new version, or after
        said = ["erased", "accepted", "accepted", "erased"] * len(asked)
        assert [one["outcome"] for one in answer["outcomes"]] == said
        assert [answer[name] for name in ("accepted", "erased", "refused")] == [2 * len(asked)] * 2 + [0]
        assert counted(service) == {"accepted": 2 * len(asked), "erased": 2 * len(asked), "refused": 0}
        until(lambda: service.reloader.engine.name == shop.current.name)
        list_of_erased = shop.registry.path.with_name("bundles.erased.json")
        written = list_of_erased.read_text()
        for text in ("{}", written):  # while it cannot be read, what it said before counts
            list_of_erased.write_text(text)
            assert [one["outcome"] for one in service.take(**asked)["outcomes"]] == said
            detail = service.client.get("/readyz").json()["detail"] or ""
            assert ("records of users who were erased may be taken" in detail) == (text == "{}")
    assert shop.users() == [shop.other] + [shop.other, shop.gone] * 3
    assert mgoe("erase", *shop.where).exit_code == 0  # the version that was served
    assert mgoe("erase", *shop.where, "--verify").exit_code == 0
    if not shop.is_of_events:
        log = open_log(shop.state)
        assert log.users({str(shop.gone): shop.erased_at + CLOCK_SKEW, "12": 0}) == []
        log.close()


def test_an_update_leaves_out_what_a_store_has_taken_too_late(
    shop: Shop,
    tmp_path: Path,
    mgoe: Mgoe,
    said: pytest.LogCaptureFixture,
):
    shop.add((shop.gone, shop.last + 1))
    assert mgoe("erase", *shop.where, "--user", shop.gone).exit_code == 0
    late = [(shop.gone, shop.last + 2), (shop.other, shop.last + 3), (999_999, shop.last + 4)]
    shop.add(*late, (shop.gone, -(10**15)))
    words = ("--state", shop.state, "--out", tmp_path / "made")
    assert mgoe("update", shop.current.path, *words).exit_code == 0
    made = Bundle.open(tmp_path / "made")
    assert shop.knows(made) == [False, True]
    assert made.indices("user", [999_999]) >= 0
    assert "2 rows are left out: they are of users who were erased since" in said.messages
    name = shop.registry.add(tmp_path / "made")
    shop.registry.promote(name, force="a test")

    found = mgoe("erase", *shop.where, "--verify")
    assert (found.exit_code, str(shop.registry.path) in found.stdout) == (3, False)
    assert "events" in found.stdout
    done = mgoe("erase", *shop.where, "--json")
    assert done.exit_code == 0
    assert '"events": 2' in done.stdout
    assert mgoe("erase", *shop.where, "--verify").exit_code == 0
    assert shop.users() == [shop.other, 999_999]
    with pytest.raises(BundleError, match="holds every event of that log"):
        update(shop.current.path, Sources(events=shop.state), tmp_path / "again", groups="keep")


def test_both_commands_look_at_every_version_and_name_it(
    shop: Shop,
    tmp_path: Path,
    mgoe: Mgoe,
    monkeypatch: pytest.MonkeyPatch,
):
    """Also one that learned of the user after the erasure, where the list was not known."""
    shop.add((shop.gone, shop.last + 1))
    assert mgoe("erase", *shop.where, "--user", shop.gone).exit_code == 0
    shop.add((shop.gone, shop.last + 2), (shop.other, shop.last + 3))
    with monkeypatch.context() as patched:
        patched.setattr("mgoe.lifecycle.new_rows.list_for", lambda _: None)
        update(shop.current.path, Sources(events=shop.state), tmp_path / "made", groups="keep")
        assert shop.knows(Bundle.open(tmp_path / "made")) == [True, True]
        refused = mgoe("registry", "add", shop.registry.path, tmp_path / "made")
        assert refused.exit_code == 2
        assert "must not hold users who were erased, found 1" in " ".join(refused.stderr.split())
        patched.setattr(registry, "check_erased", lambda *_: None)
        name = shop.registry.add(tmp_path / "made")
    candidate = str(shop.registry.place(name))
    assert (found := mgoe("erase", *shop.where, "--verify", "--json")).exit_code == 3
    assert f'"{candidate}": [' in found.stdout
    before = shop.current
    assert (done := mgoe("erase", *shop.where, "--json")).exit_code == 0
    assert name in json.loads(done.stdout)["removed"]
    assert mgoe("erase", *shop.where, "--verify").exit_code == 0
    assert shop.registry.aliases == {"current": shop.current.name}
    assert shop.current.manifest.lineage.parent == before.name
    assert shop.knows(shop.current) == [False, True]


@on_events
def test_a_current_version_that_holds_the_user_again_is_made_anew(
    shop: Shop,
    tmp_path: Path,
    mgoe: Mgoe,
    monkeypatch: pytest.MonkeyPatch,
):
    assert mgoe("erase", *shop.where[:2], "--user", shop.gone).exit_code == 0
    shop.add((shop.gone, shop.last + 2), (shop.other, shop.last + 3))
    with monkeypatch.context() as patched:
        patched.setattr("mgoe.lifecycle.new_rows.list_for", lambda _: None)
        patched.setattr(registry, "check_erased", lambda *_: None)
        update(shop.current.path, Sources(events=shop.state), tmp_path / "made", groups="keep")
        shop.registry.promote(shop.registry.add(tmp_path / "made"), force="a test")
    assert shop.knows(shop.current) == [True, True]
    assert mgoe("erase", *shop.where).exit_code == 0
    assert shop.knows(shop.current) == [False, True]
    assert mgoe("erase", *shop.where, "--verify").exit_code == 0


@on_events
def test_a_full_training_leaves_out_rows_of_erased_users_and_keeps_those_who_came_back(
    shop: Shop,
    tmp_path: Path,
    mgoe: Mgoe,
):
    assert (
        mgoe("erase", "--registry", shop.registry.path, "--user", shop.gone, "--user", shop.other).exit_code
        == 0
    )
    rows = pd.DataFrame({"user_id": [shop.gone, shop.other, 5], "item_id": [1, 2, 3], "behavior": "click"})
    moments = [shop.last + SECOND, time.time_ns() // 1000 + 2 * CLOCK_SKEW, shop.last + SECOND]
    file = tmp_path / "new.parquet"
    rows.assign(timestamp=pd.to_datetime(moments, unit="us")).to_parquet(file)
    out = tmp_path / "full"
    words = ("--log", file, "--out", out, "--weights", "new")
    assert (made := mgoe("update", shop.current.path, *words)).exit_code == 0, made.output
    assert shop.knows(Bundle.open(out)) == [False, True]
    assert Bundle.open(out).manifest.deployment == deployment_of(shop.current) is not None
    assert mgoe("registry", "add", shop.registry.path, out).exit_code == 0
