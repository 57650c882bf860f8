import io

import numpy as np
from rich.console import Console

from mgoe.evaluation import markdown_table, measure, rich_table, summarize

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
    assert (
        lines[0]
        == "| model | click AUC | click GAUC | buy AUC | buy GAUC | stay RMSE | stay Spearman | mean |"
    )
    assert [line.count("**") for line in lines[2:]] == [14, 0]
    assert all(line.count("|") == 9 for line in lines)
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
    assert {"good", "poor", f"{summarize(rows)['good']['all', 'ranking'].mean:.4f}"} <= set(printed)


def test_a_narrow_terminal_loses_no_number():
    rows = rows_of()
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(rich_table(rows), crop=False)
    numbers = [
        cell.strip("* ") for line in markdown_table(rows).splitlines()[2:] for cell in line.split("|")[2:-1]
    ]
    assert len(numbers) == 14
    text = console.export_text()
    assert all(number in text for number in numbers)
