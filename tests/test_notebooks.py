"""The notebooks run, in one process to save the start of seven kernels, and show what they print.

The short form runs the first one and the one with a service.
"""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.effort import SOAK
from tests.snippets import run_cell, without_numbers

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))
LARGEST = 100_000
SHORTER = {
    r'("training\.batch_size": \d+)': r'\1, "training.epochs": 1',
    r"ranker\.serve\(": 'ranker.serve(runtime={"engine": "torch"}, ',  # which has nothing to export
}
"""What the short form writes in place of what the notebooks say."""


@pytest.mark.parametrize(
    "notebook", NOTEBOOKS if SOAK else NOTEBOOKS[:4:3], ids=lambda notebook: notebook.stem
)
def test_a_notebook_runs_and_shows_what_it_prints(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    with pd.option_context("display.width", 80, "display.max_columns", 20):  # as in a notebook
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                printed = map(shown, run_cell(run("".join(cell["source"])), names))
                assert [*printed] == [*map(shown, map(text_of, cell["outputs"]))]


def run(source: str) -> str:
    """What is run of a cell."""
    for said, shorter in SHORTER.items() if not SOAK else ():
        source = re.sub(said, shorter, source)
    return source


def shown(text: str) -> str:
    """A text without numbers. In the short form the column of a table that depends on them goes too."""
    text = without_numbers(text)
    return text if SOAK else re.sub("# (True|False)", "# #", text)


def text_of(output: dict) -> str:
    """The text of a stored output."""
    return "".join(output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"])


def test_there_are_seven_small_ones_in_order():
    assert [notebook.stem[0] for notebook in NOTEBOOKS] == [*"1234567"]
    assert max(notebook.stat().st_size for notebook in NOTEBOOKS) < LARGEST
