"""The README runs as printed: on a small log in the short form, on its own logs in the long one."""

import re
from contextlib import ExitStack
from pathlib import Path

import httpx
import pandas as pd
import pytest
import yaml

from tests.effort import SOAK
from tests.shell import Shell
from tests.snippets import check_shown, run_cell

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
HOME = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
SHORT = {
    "split": {"cuts": [0.4, 0.6, 0.8]},
    "training": {"epochs": 1, "batch_size": 1024},
    "evaluation": {"ranking_queries": 10},
    "graph": {"recents": 5, "rank": 8},
}
"""Settings of the short form above those that `mgoe init` wrote."""


def blocks(kind: str) -> list[str]:
    """Return the blocks of code of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_commands_run_as_printed(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    if not SOAK:
        (tmp_path / "demo-log").symlink_to(world)
    install, first, serving = blocks("sh")
    lines = (install + first).splitlines()
    with ExitStack() as stack:
        shell, printed = Shell(stack), ""
        for line in lines[:-1]:
            printed = shell(line) or printed
            if line.startswith("mgoe init") and not SOAK:
                settings = yaml.safe_load(Path("mine.yaml").read_text())
                Path("mine.yaml").write_text(yaml.safe_dump(settings | SHORT))
        shown = HOME.split("### What the first run prints", 1)[1].split("\n### ", 1)[0]
        assert set(re.search(r"```sh\n(.*?)```", shown, re.DOTALL)[1].splitlines()) <= {
            line.split("  ")[0] for line in lines
        }
        names, _, *rows = re.findall(r"^\|(.+)\|$", shown, re.MULTILINE)
        assert [*filter(None, re.split(r"  +", header_of(printed)))] == cells(names)
        for row in rows:
            assert re.search(rf"^{re.escape(cells(row)[0])}  ", printed, re.MULTILINE), row

        user, item = pd.read_parquet("demo-log/events")[["user_id", "item_id"]].iloc[-1].tolist()
        recommend = lines[-1].replace("USER", str(user))
        assert recommend.startswith("mgoe recommend")
        assert len(shell(recommend).splitlines()) == 1 + 3

        serve, learn = serving.splitlines()
        shell(serve)
        event = {"user": user, "item": item, "behavior": "click", "id": "a"}
        answer = httpx.post(f"{shell.served}/v1/events", json={"events": [event]})
        assert answer.json()["accepted"] == 1
        assert "bundles/next" in shell(learn)


def test_the_python_runs_as_printed(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    [code], [shown] = blocks("python"), blocks("text")
    if SOAK:
        with ExitStack() as stack:
            Shell(stack)(
                next(line for line in blocks("sh")[0].splitlines() if line.startswith("mgoe simulate"))
            )
    else:
        (tmp_path / "demo-log").symlink_to(world)
    check_shown(shown, "\n".join(run_cell(code, {})))
    assert (tmp_path / "bundle" / "MODEL_CARD.md").exists()


def cells(row: str) -> list[str]:
    """Return the cells of a row of a table, without bold."""
    return [cell.strip(" *") for cell in row.split("|")]


def header_of(printed: str) -> str:
    """Return the line that names the columns of a printed table."""
    return next(line for line in printed.splitlines() if line.startswith("model  "))
