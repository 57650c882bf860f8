"""The tutorial runs as printed: on a small log in the short form, on its own log in the long one."""

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest

from tests.effort import SOAK
from tests.shell import Shell
from tests.snippets import check_shown, run_cell

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(sh|python|yaml|text|json)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TRAINING = "training: {batch_size: 1024}"
SHORT = """training: {batch_size: 1024, epochs: 1}
split: {cuts: [0.4, 0.6, 0.8]}
evaluation: {ranking_queries: 10}"""
"""Settings of the short form in place of those of the page."""


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page asks the service with curl")
def test_the_tutorial_runs_as_printed(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    if not SOAK:
        (tmp_path / "log").symlink_to(world)
        text = with_items_of(text, pd.read_parquet(world / "events")["item_id"])
    names: dict[str, object] = {}
    with ExitStack() as stack:
        shell, printed = Shell(stack), ""
        for kind, block in BLOCK.findall(text):
            if kind == "sh":
                printed = "".join(map(shell, block.splitlines()))
            elif kind == "python":
                printed = "\n".join(run_cell(block, names))
            elif kind == "yaml":
                assert TRAINING in block
                Path("shop.yaml").write_text(block if SOAK else block.replace(TRAINING, SHORT))
            else:
                check_shown(block, printed)
    assert shell.served


def with_items_of(text: str, items: pd.Series) -> str:
    """Return the page with the most popular items of another log in place of those that it sends."""
    sent = dict.fromkeys(re.findall(r'"item": (\d+)', text))
    for own, other in zip(sent, items.value_counts().index, strict=False):
        text = text.replace(own, str(other))
    return text
