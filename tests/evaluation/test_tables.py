import io
import re

import numpy as np
import pytest
from rich.console import Console

from mgoe.evaluation import Estimate, Standings, markdown, markdown_table, measure, rich_table, summarize
from mgoe.evaluation.rows import FEW_USERS, Row
from mgoe.evaluation.tables import number

from .made_up import TASKS, made_up


def rows_of(models=("good", "poor"), seeds=(0, 1, 2)):
    found = []
    for m, model in enumerate(models):
        for seed in seeds:
            labels, scores, users = made_up(7)
            noise = np.random.default_rng(seed).normal(size=scores.shape) * (0.02 + m)
            found += measure(scores + noise, labels, users, TASKS, model=model, seed=seed, split="test")
    return found


def test_summary_is_mean_and_spread_over_seeds():
    rows = rows_of()
    values = [r["value"] for r in rows if (r["model"], r["task"], r["metric"]) == ("poor", "buy", "gauc")]
    found = summarize(rows)["poor"]["buy", "gauc"]
    assert (found.mean, found.std, found.seeds) == (np.mean(values), np.std(values, ddof=1), 3)


def test_markdown_marks_the_best_of_each_column():
    lines = markdown_table(rows_of()).splitlines()
    of_stay = "stay RMSE | stay Spearman | stay Spearman within users"
    assert lines[0] == f"| model | click AUC | click GAUC | buy AUC | buy GAUC | {of_stay} | mean |"
    assert [line.count("**") for line in lines[2:]] == [16, 0]
    assert all(line.count("|") == 10 for line in lines)
    assert "±" in lines[2]


def test_one_model_one_seed_is_neither_best_nor_spread():
    text = markdown_table(rows_of(["only"], [0]))
    assert "**" not in text
    assert "±" not in text


def test_what_does_not_exist_is_a_dash():
    labels, scores, users = made_up(7)
    labels[:, 0] = 1
    text = markdown_table(measure(scores, labels, users, TASKS, model="m", seed=0, split="test"))
    assert "| m | - | - | 0." in text


def test_terminal_table_shows_the_same_numbers():
    rows = rows_of()
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(rich_table(rows, name="test"))
    printed = console.export_text().split()
    mean = number(summarize(rows)["good"]["all", "ranking"]).words
    assert {"good", "poor", *mean.split()} <= set(printed)


def test_a_narrow_terminal_loses_no_number():
    rows = rows_of()
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(rich_table(rows), crop=False)
    numbers = [
        cell.strip("* ") for line in markdown_table(rows).splitlines()[2:] for cell in line.split("|")[2:-1]
    ]
    assert len(numbers) == 16
    text = console.export_text()
    assert all(number in text for number in numbers)


@pytest.mark.parametrize(("users", "digits"), [(FEW_USERS // 4, 2), (2 * FEW_USERS, 4)])
def test_few_users_are_shown_with_two_digits(users, digits):
    labels, scores, user = made_up(7, users, 40 * users)
    rows = [
        row
        for model, noise in (("good", 0.0), ("poor", 0.3))
        for row in measure(scores + noise, labels, user, TASKS, model=model, seed=0, split="test")
    ]
    lead = Estimate("good", "poor", "all", "ranking", 0.02, 0.01, 0.03, (0.02,), len({*user}))
    text = markdown([Standings("", "", "good", ["good", "poor"], rows, leads=[lead])])
    numbers = re.findall(r"[+-]?\d\.(\d+)", text)
    assert len(numbers) > 14
    assert {len(number) for number in numbers} == {digits}


def test_lists_have_the_digits_of_those_who_were_asked():
    whose = {"model": "m", "seed": 0, "split": "test", "slice": "all", "task": "click"}
    values = {"auc": 0.7, "users": 5000.0, "hr@10": 0.5, "queries": 39.0}
    [found] = summarize([Row(**whose, metric=metric, value=one) for metric, one in values.items()]).values()
    assert [found["click", metric].digits for metric in ("auc", "hr@10")] == [4, 2]
