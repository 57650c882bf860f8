"""What processes that train together share."""

from pathlib import Path

import numpy as np
import pytest

from mgoe.bundle import Bundle
from mgoe.lifecycle import Sources
from mgoe.lifecycle.learning import RetrainJob
from mgoe.lifecycle.new_rows import NewRows
from mgoe.training import ProcessGroup
from tests.lifecycle.test_update_from_files import later


@pytest.mark.parametrize("form", ["events", "exposures"])
def test_every_process_receives_the_lesson_that_the_first_one_shares(
    form: str,
    world: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
):
    run = request.getfixturevalue({"events": "finished", "exposures": "shown"}[form])
    bundle, log = Bundle.open(run / "bundle"), Sources(str(later(world / form, tmp_path / "new.parquet")))
    examples = NewRows.of(bundle, log, tmp_path, trains=True).examples(bundle.encoders)
    assert examples is not None
    job, said = RetrainJob(bundle, bundle.encoders, examples, tmp_path / "fit"), []
    monkeypatch.setattr(ProcessGroup, "agree", lambda self, value: said.append(value) or said[0])
    job.share(ProcessGroup(0, 2))
    received = RetrainJob.receive(bundle, ProcessGroup(1, 2))
    assert received.folder == job.folder
    assert received.known.path == job.known.path
    mine, theirs = received.examples, job.examples
    assert mine.context.keys() == theirs.context.keys()
    for one, other in zip(mine.columns(), theirs.columns(), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert (mine.position is None) == (theirs.position is None)
