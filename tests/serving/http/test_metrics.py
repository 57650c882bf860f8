"""What alerts and the dashboard read exists from the start, and each fault moves what its rule reads."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mgoe.errors import BundleError, DamagedLogError, OtherLogError, StoreError
from mgoe.lifecycle.cycle import FAILED, page_of
from tests.serving.served import Served, served

EXAMPLES = Path(__file__).parents[3] / "examples" / "serving"
RULES = [
    rule
    for group in yaml.safe_load((EXAMPLES / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
BOARD = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
LATER = {"mgoe_score_psi": ["task"], "mgoe_input_psi": ["input"]}
"""Gauges that appear with their first figure, from 500 answers on, and their labels."""
OTHERS = {"job", "instance", "le", "quantile"}
"""Labels that Prometheus or the client add."""

Series = dict[str, set[tuple[tuple[str, str], ...]]]


def series_of(page: str) -> Series:
    """The labels of each series, by the name of the metric."""
    found: Series = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", page, re.MULTILINE):
        found.setdefault(name, set()).add(tuple(sorted(re.findall(r'(\w+)="([^"]*)"', labels))))
    return found


def figures_of(service: Served) -> dict[str, float]:
    """Every series of a service but times, with its value."""
    page = service.client.get("/metrics").text
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {
        name: float(value) for name, _, value in lines if "_seconds" not in name and "created" not in name
    }


@pytest.fixture(scope="module")
def exposition(service: Served) -> Series:
    """What a service of one worker reports before any request, and a cycle after a round."""
    page = page_of(FAILED, {}, 0.0, ("3f9a", 0.0))
    found = series_of(service.client.get("/metrics").text) | series_of(page)
    later = {name: {tuple((label, "any") for label in labels)} for name, labels in LATER.items()}
    return found | later | {"up": {()}}


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The metrics that an expression reads, each with its matchers: label, operator and value."""
    for name, matchers in re.findall(r"\b((?:mgoe_\w+)|up)\b(?:\{([^}]*)\})?", expression):
        yield name, re.findall(r'(\w+)(=~|!=|!~|=)"([^"]*)"', matchers)


def check_exists(expression: str, exposition: Series) -> None:
    read = [*selectors(expression)]
    assert read, expression
    for name, matchers in read:
        assert name in exposition, (name, expression)
        for label, operator, value in matchers:
            held = {dict(labels).get(label) for labels in exposition[name]}
            if label in OTHERS or "$" in value:
                assert label in OTHERS or held != {None}, (name, label)
            elif operator in ("=", "=~"):
                assert any(re.fullmatch(value, one) for one in held if one), (name, label, value, held)
            else:
                assert held != {None}, (name, label)
    names = {label for name, _ in read for labels in exposition[name] for label, _ in labels} | OTHERS
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= names, expression


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_what_an_alert_reads_exists_from_the_start(rule: dict[str, Any], exposition: Series):
    """So `increase` sees the first failure: a series that appears with it begins at 1."""
    check_exists(rule["expr"], exposition)
    assert rule["annotations"]["summary"].endswith(".")


def test_what_the_dashboard_reads_exists(exposition: Series):
    for panel in PANELS:
        for target in panel["targets"]:
            check_exists(target["expr"], exposition)
            held = {
                label for name, _ in selectors(target["expr"]) for one in exposition[name] for label, _ in one
            }
            assert {*re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])} <= held | OTHERS, panel["title"]


def test_the_page_lists_every_metric(exposition: Series):
    page = (EXAMPLES.parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    held = {re.sub("_(bucket|sum|count)$", "", name) for name in exposition if "_created" not in name}
    assert {*re.findall(r"`(mgoe_\w+)`", page)} == {name for name in held if re.match("mgoe_(?!live_)", name)}


def test_the_panels_of_the_dashboard_cover_each_other_nowhere():
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)


def test_every_alert_has_a_test_in_which_it_fires():
    tests = yaml.safe_load((EXAMPLES / "alerts.test.yaml").read_text(encoding="utf-8"))["tests"]
    checks = [one for test in tests for one in test["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {one["alertname"] for one in checks if one["exp_alerts"]} == names
    assert {one["alertname"] for one in checks if not one["exp_alerts"]} == names


@pytest.mark.skipif(shutil.which("promtool") is None, reason="not installed: apt-get install promtool")
def test_promtool_agrees(tmp_path: Path):
    """With the rules, with their tests, and with the expressions of the dashboard, written as rules."""
    asked = [
        target["expr"].replace("$__rate_interval", "5m") for panel in PANELS for target in panel["targets"]
    ]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(asked)]
    board = tmp_path / "board.yaml"
    board.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    for words in (["check", "rules", "alerts.yaml", board], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run(["promtool", *words], cwd=EXAMPLES, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_fault_moves_what_its_rule_reads_and_nothing_else(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    event = {"user": 1, "item": 1, "behavior": "click"}
    with served(finished / "bundle", tmp_path) as service:
        engine, reloader = service.reloader.engine, service.reloader

        def fail(error: Exception) -> Any:
            def failing(*_: object, **__: object) -> None:
                raise error

            return failing

        def catch_up() -> None:
            """In the thread that follows the log, so behind a look that has begun without the fault."""
            reloader._reader.submit(reloader.catch_up).result()

        def moved(before: dict[str, float]) -> dict[str, float]:
            """What has moved beside requests for `/metrics` itself."""
            now = figures_of(service)
            assert before.keys() == now.keys()
            return {
                name: now[name] - before[name]
                for name in now
                if now[name] != before[name] and 'route="/metrics"' not in name
            }

        start = figures_of(service)
        with monkeypatch.context() as broken:
            broken.setattr(reloader.log, "append", fail(StoreError("store", "is full")))
            assert service.client.post("/v1/events", json={"events": [event]}).status_code == 503
        assert moved(start) == {
            'mgoe_write_failures_total{store="events"}': 1.0,
            'mgoe_requests_total{route="/v1/events",status="503"}': 1.0,
        }
        for error, expected in (
            (StoreError("store", "is away"), {"mgoe_store_up": -1.0}),
            (DamagedLogError("store", "is damaged"), {"mgoe_store_up": -1.0, "mgoe_store_damaged": 1.0}),
            (OtherLogError("store", "is older"), {"mgoe_store_up": -1.0, "mgoe_store_damaged": 1.0}),
        ):
            start = figures_of(service)
            with monkeypatch.context() as broken:
                broken.setattr(engine.consumer, "catch_up", fail(error))
                catch_up()
                assert moved(start) == expected
            catch_up()
            assert moved(start) == {}
        reloader.refuse(BundleError("bundle", "is broken"))
        service.middleware.tokens.failed()
        assert moved(start) == {
            'mgoe_bundle_swaps_total{outcome="refused"}': 1.0,
            "mgoe_token_file_failures_total": 1.0,
        }
