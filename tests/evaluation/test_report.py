import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgoe.evaluation import Standings
from mgoe.evaluation.report import MacroView, ReportData, render, write_report
from mgoe.evaluation.report.charts import Axis
from mgoe.features.macro_nodes import MacroNode

from .made_up_report import SKILL, report_data

VOID = {"meta", "br", "img", "input", "link", "hr", "base", "source"}
HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}"


class Page(HTMLParser):
    """Reads a page, and fails where a tag is not closed by its own end."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def check_alone(html):
    """Nothing is loaded: no address, no element and no style that could."""
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "use", "image"} & set(page.tags)
    assert "http" not in html
    assert "@import" not in html
    assert "url(" not in html
    assert not re.search(r"\bsrc\s*=", html)
    assert all(value.startswith("#") for name, value in page.attributes if name in ("href", "xlink:href"))
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    return page


@pytest.fixture(scope="module")
def page():
    return check_alone(render(report_data()))


def test_every_part_is_there(page):
    ids = {value for name, value in page.attributes if name == "id"}
    links = {value[1:] for name, value in page.attributes if name == "href"}
    parts = {
        "results",
        "differences",
        "tasks",
        "slices",
        "catalogue",
        "training",
        "reliability",
        "macro",
        "gates",
        "method",
    }
    assert ids == links == parts
    for words in (
        "Tmall: click, fav, buy",
        "mgoe reaches 0.73",
        "17,435",
        "shared-bottom+graph",
        "days) after it",
        "drawn from the events",
    ):
        assert words in page.text
    assert page.tags.count("svg") > 20
    assert "nan" not in re.findall(r"[a-z]+", page.text.lower())


def test_the_best_is_marked_and_bounds_do_not_compete():
    data = report_data(models=["mgoe", "mmoe"], seeds=range(2))
    rows = data.standings.rows
    bound = [{**row, "model": "best-reachable", "value": 0.99} for row in rows if row["model"] == "mgoe"]
    html = render(report_data(models=["mgoe", "mmoe"], seeds=range(2), rows=[*rows, *bound]))
    lines = re.findall(r'<tr[^>]*><th scope="row" title="([^"]*)">.*?</tr>', html)
    best = re.findall(r'<th scope="row" title="([^"]*)">[^\n]*class="best"', html)
    assert {"mgoe", "mmoe", "best-reachable"} <= set(lines)
    assert "mgoe" in best
    assert "best-reachable" not in best
    assert "the best of 2 models" in html


@pytest.mark.parametrize("where", ["title", "facts", "notes", "settings", "command"])
def test_hostile_words_stay_words(where):
    value = {"facts": {HOSTILE: HOSTILE}, "notes": [HOSTILE]}.get(where, HOSTILE)
    html = render(report_data(models=["mgoe"], seeds=[0], **{where: value}))
    assert "<script" not in html
    assert "alert(1)" in check_alone(html).text
    assert "{{ 7*7 }}" in html


def test_hostile_names_of_models_tasks_slices_and_ids_stay_words():
    data = report_data(models=["mgoe"], seeds=[0])
    swap = {"mgoe": HOSTILE, "click": HOSTILE, "new-pairs": HOSTILE}
    rows = [
        {**row, **{key: swap.get(row[key], row[key]) for key in ("model", "task", "slice")}}
        for row in data.standings.rows
    ]
    nodes = [MacroNode(k, HOSTILE, 2 - k, [HOSTILE], [HOSTILE], [HOSTILE]) for k in range(2)]
    macro = MacroView(np.ones((1, 2)), nodes[:1], nodes)
    changes = {
        "curves": {HOSTILE: data.curves["mgoe"]},
        "reliability": {HOSTILE: {HOSTILE: data.reliability["mgoe"]["click"]}},
    }
    changes |= {"standings": Standings("", "", HOSTILE, [HOSTILE], rows)}
    html = render(report_data(models=["mgoe"], seeds=[0], macro=macro, **changes))
    check_alone(html)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 10


def test_rows_alone_make_a_report():
    data = report_data(models=["mgoe"], seeds=[0])
    page = check_alone(render(ReportData("one", replace(data.standings, leads=()))))
    assert "One seed." in page.text
    check_alone(render(ReportData("nothing", Standings("", "", "", [], []))))


def test_nan_everywhere_still_makes_a_report():
    data = report_data(models=list(SKILL)[:2], seeds=range(2))
    rows = [{**row, "value": math.nan} for row in data.standings.rows]
    curve = {
        "monitor": "all.ranking",
        "best_epoch": 1,
        "epochs": [{"epoch": 1, "losses": {"click": None}, "monitor": None, "watch": {}}],
    }
    points = {"predicted": [], "observed": [], "rows": []}
    html = render(
        report_data(
            models=list(SKILL)[:2],
            rows=rows,
            leads=(),
            estimates=(),
            curves={"mgoe": {0: curve}},
            reliability={"mgoe": {"click": points, "fav": points}},
        )
    )
    check_alone(html)
    assert '<td data-column="click AUC">-</td>' in html
    assert "nan" not in re.findall(r"[a-z]+", html.lower())


def test_a_difference_without_an_interval_is_not_drawn_strong():
    data = report_data(models=["mgoe", "mmoe"], seeds=[0])
    ends = {"sure": (0.001, 0.002), "around": (-1.0, 1.0), "none": (math.nan, math.nan)}
    known = data.standings.leads
    of = {name: [replace(one, low=low, high=high) for one in known] for name, (low, high) in ends.items()}
    drawn = {
        name: render(report_data(models=["mgoe", "mmoe"], seeds=[0], leads=found))
        for name, found in of.items()
    }
    strong = {name: page.count('class="dot strong"') for name, page in drawn.items()}
    assert strong["none"] == strong["around"] < strong["sure"]
    assert "nan" not in re.findall(r"[a-z]+", drawn["none"].lower())


def test_the_file_is_written_whole(tmp_path):
    write_report(tmp_path / "report.html", report_data(models=["mgoe"], seeds=[0]))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").endswith("</html>\n")


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.booleans())
def test_axes_keep_order_and_ticks_inside(low, width, log):
    low = abs(low) + 1e-3 if log else low
    around = Axis.around([low, low + width])
    axis = Axis(low, (low + width) * 1.25, log=True) if log else around
    assert 0 <= axis.share(low) <= axis.share(low + width / 2) <= axis.share(low + width) <= 1
    slack = 1e-9 * max(abs(axis.low), abs(axis.high))
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in axis.ticks())
    assert len(axis.ticks()) <= 12
