"""The first lines of a run: its result, and what lists from the whole catalogue are worth."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mgoe.evaluation import Estimate, Row, Standings
from mgoe.evaluation.findings import UNMEASURED, finding, page_findings, page_table
from mgoe.evaluation.report import render
from mgoe.evaluation.rows import summarize
from mgoe.experiments.notices import of_results

from .made_up_report import report_data


def lists(shares, users=100.0):
    rows = [
        Row(model=model, seed=0, split="test", slice="all", task="click", metric=metric, value=value)
        for model, share in shares.items()
        for metric, value in (("auc", 0.7), ("hr@10", share), ("queries", users))
    ]
    return Standings("", "", "mgoe", [*shares], rows)


@given(share=st.floats(0, 1), users=st.integers(1, 10_000))
def test_an_interval_holds_its_share_and_lies_between_0_and_100(share, users):
    table = page_table(summarize(lists({"mgoe": share}, float(users)).rows))
    assert table is not None
    [(_, [cell])] = table.lines
    low, high = map(float, cell.note.split(" to "))
    assert 0 <= low <= float(cell.text) <= high <= 100


@given(mine=st.floats(0, 1), other=st.floats(0, 1), users=st.integers(1, 10_000))
def test_who_is_ahead_has_the_larger_share_and_the_other_one_says_the_reverse(mine, other, users):
    said, reverse = (
        page_findings(lists({"mgoe": a, "popularity": b}, float(users)))[1].split("mgoe is ")[1]
        for a, b in ((mine, other), (other, mine))
    )
    assert said in ("ahead of popularity", "behind popularity", "level with popularity")
    assert mine >= other or "ahead" not in said
    opposite = {"ahead": "behind", "behind": "ahead", "level": "level"}
    assert reverse.split()[0] == opposite[said.split()[0]]


def test_a_page_that_popularity_makes_better_is_said_in_words():
    [question, line] = page_findings(lists({"mgoe": 0.35, "popularity": 0.71, "history": 0.4}))
    assert question.startswith("Would a page be better? Of 100 users")
    assert line == (
        "click: mgoe 35 (26 to 45), popularity 71 (61 to 79), history 40 (31 to 50); "
        "mgoe is behind popularity, level with history"
    )


def test_lists_that_were_not_measured_are_said_in_one_line_with_the_command():
    data = report_data(models=["mgoe"], seeds=range(1))
    rows = [row for row in data.standings.rows if "@" not in row["metric"]]
    assert page_findings(replace(data.standings, rows=rows)) == [UNMEASURED]
    page = render(report_data(models=["mgoe"], seeds=range(1), rows=rows))
    assert "--set evaluation.ranking_queries=100" in page
    assert "HR and NDCG at every depth" not in page
    ratings = [row for row in rows if row["metric"] not in ("auc", "gauc")]
    assert page_findings(replace(data.standings, rows=ratings)) == []


def test_the_result_is_one_sentence_and_comes_before_the_lists():
    data = report_data()
    said = finding(data.standings)
    assert said.endswith(").")
    assert ". " not in said
    page = render(data)
    order = [page.index(words) for words in ("mgoe reaches", 'id="catalogue"', 'id="results"', 'id="tasks"')]
    assert order == sorted(order)


def test_a_task_below_chance_or_below_popularity_is_said():
    own = Estimate("mgoe", None, "buy", "auc", 0.4, 0.35, 0.45, (0.4,), users=500)
    lead = Estimate("mgoe", "popularity", "click", "auc", -0.02, -0.03, -0.01, (-0.02,), users=500)
    assert [line.split(":")[0] for line in of_results([], [], [own], [lead])] == [
        "buy is ranked below chance",
        "click is ranked worse than popularity ranks it",
    ]
    may_be_chance = replace(lead, high=0.01)
    assert of_results([], [], [replace(own, low=0.51, high=0.6)], [may_be_chance]) == []
