"""The page in a headless Chromium: users, rankings, explanations, keyboard, sizes and colour schemes."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mgoe
from tests.effort import SOAK
from tests.serving.served import Served, served

NONE = "no Chromium: apt-get install chromium, pip install playwright"
playwright = pytest.importorskip("playwright.sync_api", reason=NONE)
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("MGOE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of the system, or the one that playwright installed."""
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


if CHROMIUM is None:  # decided here, so that all tests are skipped in one line
    try:
        with chromium():
            pass
    except playwright.Error:
        pytest.skip(NONE, allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def live(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(finished / "bundle", tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.fixture(scope="module")
def named(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A bundle of an exposure log whose items have names, with a sample space and a regression."""
    with served(shown / "bundle", tmp_path_factory.mktemp("state")) as found:
        yield found


def opened(browser: Any, service: Served, width: int = 1280, height: int = 900, scheme: str = "light") -> Any:
    """Open the page and keep its errors."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.set_default_timeout(120_000)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "console", lambda message: page.complaints.append(message.text) if message.type == "error" else None
    )
    page.goto(service.url)
    page.wait_for_selector("#pair")
    return page


@pytest.fixture(scope="module")
def page(browser: Any, live: Served) -> Iterator[Any]:
    """The page, for tests of its functions."""
    found = opened(browser, live)
    yield found
    found.close()


def says(page: Any, place: str, text: str) -> None:
    """Wait until a part of the page holds a text."""
    page.locator(place, has_text=text).wait_for()


def items_shown(page: Any) -> list[str]:
    return page.eval_on_selector_all("#rows tr", "rows => rows.map(row => row.dataset.item)")


def test_a_user_is_ranked_by_a_formula_and_by_task(browser: Any, live: Served, bundle: mgoe.Bundle):
    page = opened(browser, live)
    user = str(bundle.encoders.users.ids([4]).to_pylist()[0])
    page.fill("#user", user)
    page.fill("#objective", "click * buy^2")
    page.fill("#k", "7")
    page.click("button.main")
    says(page, "#summary", f"for user {user}, by click * buy^2.")
    assert items_shown(page) == [
        str(item) for item in live.rank(user=user, k=7, objective="click * buy^2")["items"]
    ]
    assert page.inner_text("#titles th:nth-child(3)") == "score, best = 100"
    for task in bundle.tasks:
        page.get_by_role("button", name=task, exact=True).first.click()
        says(page, "#summary", f"by {task}.")
        assert items_shown(page) == [str(item) for item in live.rank(user=user, k=7, objective=task)["items"]]
        assert page.input_value("#objective") == task
    edges = page.eval_on_selector_all("#userEdges .value", "all => all.map(one => Number(one.textContent))")
    expected = [edge["score"] for edge in live.explain(user=user)["user_edges"]][:8]
    np.testing.assert_allclose(edges, expected, atol=5e-3 * max(expected))
    macro = live.client.get("/v1/macro?limit=40").json()
    assert page.locator("#macro svg rect.cell").count() == len(macro["users"]) * len(macro["items"])
    assert page.complaints == []
    page.close()


def test_it_ranks_as_the_service_does_by_default(browser: Any, named: Served):
    page = opened(browser, named)
    shown = named.rank(user=page.input_value("#user"))
    assert page.input_value("#objective") == shown["objective"] == "click * buy"
    assert items_shown(page) == [str(item) for item in shown["items"]]
    assert page.get_attribute("#tasks button:first-child", "aria-pressed") == "true"
    page.close()


def test_every_column_has_one_unit_which_its_head_names(browser: Any, named: Served):
    page = opened(browser, named)
    shown = named.rank(user=page.input_value("#user"))
    by = {"click * buy": np.multiply(shown["tasks"]["click"], shown["tasks"]["buy"])} | shown["tasks"]
    heads = page.eval_on_selector_all("#titles th", "all => all.slice(2).map(one => one.textContent)")
    units = dict(head.split(", ", 1) for head in heads)
    scales = {"%": 100, "per 1,000": 1e3, "per million": 1e6, "as logged": 1}
    assert (list(units), units["stay"]) == ([*by], "as logged")
    for column, (name, unit) in enumerate(units.items(), start=3):
        texts = page.eval_on_selector_all(
            f"#rows td:nth-child({column})", "all => all.map(one => one.textContent)"
        )
        np.testing.assert_allclose([*map(float, texts)], np.multiply(by[name], scales[unit]), atol=0.06)
    groups = "all => all.slice(0, 2).map(one => [one.textContent, one.nextSibling.textContent])"
    (chances, numbers), (expected, stay) = page.eval_on_selector_all("#explanation h3", groups)
    assert re.fullmatch(r"How likely each task is, (%|per 1,000)", chances)
    assert re.fullmatch(r"click[\d.]+buy[\d.]+", numbers)
    assert expected == "Expected values, as logged"
    assert re.fullmatch(r"stay[\d.]+", stay)
    page.close()


def test_items_that_the_user_knows_are_marked(browser: Any, named: Served):
    page = opened(browser, named)
    user = page.input_value("#user")
    shown, new = (
        {str(item) for item in named.rank(user=user, k=100, exclude_known=choice)["items"]}
        for choice in (False, True)
    )
    page.fill("#k", "100")
    page.click("button.main")
    page.wait_for_function("rows => document.querySelectorAll('#rows tr').length === rows", arg=len(shown))
    marked = "all => all.map(one => one.closest('tr').dataset.item)"
    assert set(page.eval_on_selector_all("#rows .known", marked)) == shown - new != set()
    assert len(new) > 0
    assert page.inner_text("#legend .known") == "known"
    known = page.locator("#rows tr", has=page.locator(".known")).first
    assert known.get_by_role("button").get_attribute("aria-label").endswith(", known to the user")
    known.get_by_role("button").click()
    says(page, "#explanation", "already has a history with this item")
    page.check("#new")
    page.click("button.main")
    page.wait_for_function("rows => document.querySelectorAll('#rows tr').length === rows", arg=len(new))
    assert page.locator("#rows .known").count() == 0
    assert not page.is_visible("#legend")
    assert page.complaints == []
    page.close()


def test_names_of_a_side_table_reach_the_page(browser: Any, named: Served):
    page = opened(browser, named)
    first = items_shown(page)[0]
    assert page.inner_text("#rows tr:first-child button") == f"Thing {first}"
    says(page, "#pair", f"Thing {first} (item {first}) for user")
    recent = named.explain(user=page.input_value("#user"))["recents"]["items"][0]
    did = f"Thing {recent['id']} {recent['id']} · {', '.join(recent['tasks'])}"
    assert page.inner_text("#explanation .chips li") == did
    assert "such as Thing" in page.inner_text("#userEdges")
    asked = {"users": [1], "items": [first, "nobody knows it"]}
    found = named.client.post("/v1/names", json=asked).json()
    assert (found["users"], found["items"]) == ([None], [f"Thing {first}", None])
    nodes = named.client.get("/v1/macro/nodes").json()["items"]
    assert all(
        name == f"Thing {id}"
        for node in nodes
        for id, name in zip(node["typical"], node["typical_names"], strict=True)
    )
    page.close()


def test_the_keyboard_is_enough(browser: Any, live: Served):
    page = opened(browser, live)
    page.focus("#user")
    with page.expect_response(lambda response: "/v1/explain" in response.url):  # asked once the rows are new
        page.keyboard.press("Enter")
    shown = items_shown(page)
    page.focus("#rows tr:first-child button")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    says(page, "#pair", f"{shown[1]}")
    assert page.eval_on_selector("#rows tr.chosen", "row => row.dataset.item") == shown[1]
    reached = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"user", "objective", "k", "new", "BUTTON", "SUMMARY", "svg"} <= reached
    page.focus("#macro svg")
    page.keyboard.press("ArrowDown")
    nodes = live.client.get("/v1/macro?limit=40").json()
    says(page, "#reading", f"{nodes['users'][0]['members']} users ({nodes['users'][0]['name']})")
    page.keyboard.press("Escape")
    assert page.inner_text("#reading") == ""
    page.close()


def test_an_event_is_written_only_after_a_yes(browser: Any, live: Served):
    page = opened(browser, live)
    page.fill("#user", "987654321")
    page.click("button.main")
    says(page, "#summary", "never seen")
    item = items_shown(page)[0]
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/v1/events" in request.url else None)
    record = page.get_by_role("button", name=f"Record buy of user 987654321 on item {item}")
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.keyboard.press("Enter")):
        record.focus()
        page.keyboard.press("Enter")
        question = page.get_by_role("dialog", name="Record that user 987654321 did")
        question.wait_for()
        assert page.evaluate("document.activeElement.id") == "cancel"  # which Enter presses
        close()
        question.wait_for(state="hidden")
        assert record.evaluate("one => one === document.activeElement")
    assert sent == []
    assert live.explain(user=987654321)["live"] == {"user": None}
    record.click()
    page.get_by_role("button", name="Record buy", exact=True).click()
    says(page, "#explanation", "(new)")
    assert len(sent) == 1
    assert str(live.explain(user=987654321)["recents"]["items"][0]["id"]) == item
    page.close()


@pytest.mark.parametrize(
    ("column", "unit", "texts"),
    [
        ([0.3, 0.0021], "%", ["30.0", "0.21"]),
        ([0.0041, 0.000052], "per 1,000", ["4.10", "0.05"]),
        ([9.84e-5, 2e-9], "per million", ["98.4", "< 0.01"]),
        ([0], "per billion", ["0.00"]),
    ],
)
def test_a_column_of_probabilities_has_one_unit(page: Any, column: list[float], unit: str, texts: list[str]):
    found = page.evaluate(
        f"(() => {{ const u = unitOf({column}); return [u[1], {column}.map(p => inUnit(p, u))]; }})()"
    )
    assert found == [unit, texts]


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        ([48.75, 0.3, 7], ["48.8", "0.3", "7.0"]),
        ([-0.0123, 0], ["-0.0123", "0.0000"]),
        ([12345.6], ["12,346"]),
        ([0], ["0"]),
    ],
)
def test_a_column_of_other_numbers_has_as_many_decimals_in_each_row(
    page: Any, column: list[float], texts: list[str]
):
    assert page.evaluate(f"inDecimals({column})") == texts


def test_tasks_that_share_a_gate_share_its_bars(page: Any):
    titles = "gates => [...experts(gates).querySelectorAll('h3')].map(one => one.textContent)"
    one, other = {"1": 0.25, "2": 0.75}, {"1": 0.5, "2": 0.5}
    assert page.evaluate(titles, {"click": one, "buy": one}) == ["All tasks"]
    assert page.evaluate(titles, {"click": one, "buy": other, "stay": one}) == ["click, stay", "buy"]


def test_a_mistake_is_shown(browser: Any, live: Served):
    page = opened(browser, live)
    page.fill("#objective", "clik")
    page.click("button.main")
    says(page, "#trouble", "did you mean")
    assert page.get_attribute("#trouble", "role") == "alert"
    page.close()


def test_a_token_is_asked_for(browser: Any, finished: Path, tmp_path: Path):
    with served(finished / "bundle", tmp_path, tokens=(b"a-token-of-this-test",)) as guarded:
        page = browser.new_page()
        page.goto(guarded.url)
        says(page, "#trouble", "token")
        page.fill("#token", "a-token-of-this-test")
        page.keyboard.press("Tab")
        page.wait_for_selector("#pair")
        assert page.is_visible("#pair")
        page.close()


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [(390, 844, "dark"), (1280, 900, "light"), *[(390, 844, "light"), (1280, 900, "dark")] * SOAK],
)
def test_it_fits_phones_and_desktops_in_light_and_dark(
    browser: Any, named: Served, tmp_path: Path, width: int, height: int, scheme: str
):
    page = opened(browser, named, width, height, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.eval_on_selector(".scroll", "table => table.scrollWidth - table.clientWidth") <= 0
    is_small = "one => one.offsetParent && one.getBoundingClientRect().height < 30"
    small = f"all => all.filter({is_small}).map(one => one.outerHTML)"
    assert page.eval_on_selector_all("button, input:not([type=checkbox])", small) == []
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert contrast(paper, ink) > 7
    assert (luminance(paper) > 0.5) == (scheme == "light")
    cut = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"
    assert page.eval_on_selector_all(".bars .name", cut) == []
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert page.complaints == []
    page.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_chosen_item_is_explained_in_sight(browser: Any, live: Served, width: int):
    """On a phone, the explanation stands below the ranking."""
    page = opened(browser, live, width)
    page.click("#rows tr:nth-child(4) button")
    says(page, "#pair", f"item {items_shown(page)[3]} for")
    page.wait_for_function(
        "() => document.getElementById('pair').getBoundingClientRect().top < innerHeight / 2"
    )
    assert (page.evaluate("scrollY") > 0) == (width == 390)
    page.close()


def test_every_control_has_a_name(browser: Any, live: Served):
    page = opened(browser, live)
    named = "one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length"
    unnamed = f"all => all.filter(one => !({named})).map(one => one.outerHTML)"
    assert (
        page.eval_on_selector_all("button, input, summary, section, [role=region], [role=group]", unnamed)
        == []
    )
    assert page.get_attribute("#macro svg", "aria-label")
    assert page.get_attribute("html", "lang") == "en"
    page.close()


def luminance(color: str) -> float:
    """Return the luminance of an rgb(...) colour, by WCAG."""
    parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
