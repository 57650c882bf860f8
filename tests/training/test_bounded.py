"""Examples four times as large as the memory for them train within it, and as well as in one piece."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mgoe.config import TaskSettings
from mgoe.data import ExampleFile
from mgoe.data.example_file import ExampleWriter
from tests.effort import SOAK, slow
from tests.training.fakes import TASKS, make_examples

ROOT = Path(__file__).parents[2]
MEMORY = 0.4 if SOAK else 0.0625
"""GiB."""
ROWS, WIDTH = 5000, 64
"""Of a part that is written at once, and codes of a row, which make it as wide as those of rich logs."""


def write_examples(folder: Path, size: float) -> int:
    """Examples that take so many GiB in memory, and a part for validation.

    Returns the bytes of the former.
    """
    with ExampleWriter(
        folder, np.array([0, 10, 20], np.int32), [TaskSettings(name=task.name) for task in TASKS]
    ) as writer:
        for number in range(int(size * (1 << 30) / (ROWS * 8 * WIDTH))):
            part = make_examples(ROWS, seed=number)
            codes = np.random.default_rng(number).integers(0, 7, (ROWS, WIDTH))
            bucket = np.full(ROWS, 15 if number == 0 else 5, np.int32)  # the first part is for validation
            context = {"hour": part.context["hour"], "codes": codes}
            weight = np.ones(ROWS, np.float32)
            writer.write(part.user, part.item, bucket, part.labels, weight, part.position, context=context)
    file = ExampleFile(folder / "train.parquet", [task.name for task in TASKS], 1)
    return len(file) * file.row_bytes


@slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory of a process is read as Linux reports it"
)
def test_training_keeps_within_its_memory_and_loses_nothing(tmp_path):
    assert write_examples(tmp_path, 4 * MEMORY) >= 4 * MEMORY * (1 << 30)
    command = [
        sys.executable,
        "-m",
        "tests.training.bounded",
        str(tmp_path),
        str(tmp_path / "out"),
        str(MEMORY),
    ]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    found = json.loads(process.stdout)
    assert found["streamed"]
    assert found["refused"]  # the limit is one
    for task, values in found["within"].items():
        assert values["auc"] == pytest.approx(found["whole"][task]["auc"], abs=1e-3)
        assert values["auc"] > 0.8
