"""An interrupted fit resumes, and ends as if it had not been interrupted."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mgoe.errors import DataError, TrainingError
from mgoe.training import fit
from mgoe.training.checkpoint import load_checkpoint, save_checkpoint
from mgoe.training.resume import Checkpoints, deferred
from tests.effort import SOAK
from tests.training import fakes
from tests.training.fakes import Model, make_feed, make_streamed_feed, write_shards
from tests.training.test_loop import TRAIN, VALID, equal, training, weights

KILLS, LONG = (30, 40) if SOAK else (1, 15)
"""Fits that are killed, and their epochs."""
FIELDS = ("epoch", "step", "losses", "validation", "monitor", "watch")


def history(result) -> list[dict]:
    return [{name: epoch[name] for name in FIELDS} for epoch in result.curves]


class Cut(Exception):
    pass


def cut_after(step: int):
    """Return a progress callback that interrupts the fit after so many steps."""

    def report(progress):
        if progress.step >= step:
            raise Cut

    return report


def fit_with_a_checkpoint_every_step(out, model, step=None, **changes):
    settings = training(checkpoint="0s", **changes)
    report = None if step is None else cut_after(step)
    return fit(model, TRAIN, VALID, settings, out, on_progress=report, seed=5, resume=True)


@pytest.fixture(autouse=True)
def report_every_step(monkeypatch):
    monkeypatch.setattr("mgoe.training.loop.REPORT_STEPS", 1)


@pytest.mark.parametrize("step", [2, 5, 12, 13, 30])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_an_interrupted_fit_resumes_bit_for_bit(tmp_path, step, dropout):
    whole = Model(dropout=dropout)
    expected = fit(whole, TRAIN, VALID, training(precision="bfloat16"), tmp_path / "whole", seed=5)
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path / "cut", Model(dropout=dropout), step, precision="bfloat16")
    model = Model(seed=3, dropout=dropout)  # its own start must not matter
    found = fit_with_a_checkpoint_every_step(tmp_path / "cut", model, precision="bfloat16")
    assert equal(weights(model), weights(whole))
    assert history(found) == history(expected)
    assert (found.best_epoch, found.best_value, found.epochs) == (
        expected.best_epoch,
        expected.best_value,
        expected.epochs,
    )


def test_the_first_report_after_resuming_covers_the_steps_since(tmp_path, monkeypatch):
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path, Model(), 5)
    latest = load_checkpoint(max((tmp_path / "checkpoints").iterdir()))
    first, seen = latest[1]["state"]["steps"], []
    monkeypatch.setattr("mgoe.training.loop.REPORT_STEPS", 20)
    fit(Model(), TRAIN, VALID, training(), tmp_path, on_progress=seen.append, seed=5, resume=True)
    since = sum(seen[0].losses.values()) * 12 - float(latest[0]["losses"].sum())
    assert seen[0].loss == pytest.approx(since / (12 - first), rel=1e-4)


def test_a_finished_fit_is_not_done_again(tmp_path):
    first = fit_with_a_checkpoint_every_step(tmp_path, Model())
    model = Model(seed=8)
    again = fit_with_a_checkpoint_every_step(tmp_path, model, step=0)
    assert history(again) == history(first)


def test_times_are_of_all_processes_together(tmp_path):
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path, Model(), 5)
    latest = max((tmp_path / "checkpoints").iterdir())
    tensors, meta = load_checkpoint(latest)
    assert meta["cpu_seconds"] > 0
    save_checkpoint(latest, tensors, meta | {"seconds": 1e6, "cpu_seconds": 5e5})
    found = fit_with_a_checkpoint_every_step(
        shutil.copytree(tmp_path, tmp_path.with_name("resumed")), Model()
    )
    assert 1e6 < found.seconds < 1e6 + 1000
    assert 5e5 < found.cpu_seconds < 5e5 + 1000


def test_without_resume_it_starts_again(tmp_path):
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path, Model(), 5)
    model, whole = Model(), Model()
    fit(model, TRAIN, VALID, training(epochs=1), tmp_path)
    fit(whole, TRAIN, VALID, training(epochs=1), tmp_path / "other")
    assert equal(weights(model), weights(whole))


def test_the_last_checkpoints_stay(tmp_path):
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path, Model(), 9)
    assert [file.stem for file in sorted((tmp_path / "checkpoints").iterdir())] == [
        f"{step:010d}" for step in (7, 8)
    ]


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    whole = Model()
    fit(whole, TRAIN, VALID, training(), tmp_path / "whole", seed=5)
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path / "cut", Model(), 9)
    newest = max((tmp_path / "cut" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-10])
    model = Model()
    fit_with_a_checkpoint_every_step(tmp_path / "cut", model)
    assert equal(weights(model), weights(whole))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"learning_rate": 0.5}, r"other settings: 'learning_rate' is 0.02 there and 0.5 here"),
        ({"epochs": 7}, r"other settings: 'epochs' is 3 there and 7 here"),
        ({"seed": 9}, r"other seed: 5 there and 9 here"),
        ({"train": 1000}, r"other examples: 'training' is 3000 there and 1000 here"),
        ({"graph": "another"}, r"other graph: of a fake there and another here"),
        ({"model": 9}, r"other parameters: 'head.bias' is \[2\] there and \[9\] here"),
        ({"dropout": 0.2}, r"other model: 'dropout' is 0.0 there and 0.2 here"),
        ({"weight": 2.0}, r"other tasks: .*'weight': 1.0.* there and .*'weight': 2.0.* here"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(tmp_path, monkeypatch, change, sentence):
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path, Model(), 5)
    monkeypatch.setattr(fakes.GRAPH, "checksum", change.get("graph", "of a fake"))
    train = make_feed(change["train"]) if "train" in change else TRAIN
    model = Model(dropout=change.get("dropout", 0.0))
    if "weight" in change:
        model.spec = replace(
            model.spec, tasks=tuple(replace(task, weight=change["weight"]) for task in model.spec.tasks)
        )
    if "model" in change:
        model.head = torch.nn.Linear(19, change["model"])
    settings = training(
        **{name: value for name, value in change.items() if name in ("learning_rate", "epochs")}
    )
    with pytest.raises(
        TrainingError, match=f"the checkpoint is of another fit, found {sentence}.*start again"
    ):
        fit(model, train, VALID, settings, tmp_path, seed=change.get("seed", 5), resume=True)


def test_best_weights_that_are_ahead_of_the_checkpoint_stay_the_best(tmp_path):
    """As a kill between the two leaves them, if the epoch is worse when it is repeated on another device."""
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path, Model(), 5)
    kept = Model(seed=8)
    save_checkpoint(tmp_path / "model.safetensors", kept.state_dict(), {"epoch": 1, "value": 0.999})
    model = Model()
    found = fit_with_a_checkpoint_every_step(tmp_path, model)
    assert (found.best_epoch, found.best_value) == (1, 0.999)
    assert equal(weights(model), weights(kept))


def test_what_an_earlier_fit_kept_is_not_taken_for_the_best(tmp_path):
    save_checkpoint(tmp_path / "model.safetensors", Model(seed=8).state_dict(), {"epoch": 3, "value": 0.999})
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path, Model(), 5)
    assert fit_with_a_checkpoint_every_step(tmp_path, Model()).best_value < 0.99


def test_where_and_how_fast_may_change(tmp_path):
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path, Model(), 5)
    settings = training(threads=2, checkpoint="1h")
    assert fit(Model(), TRAIN, VALID, settings, tmp_path, seed=5, resume=True).epochs == 3


def test_streamed_examples_keep_the_window_that_puts_them_in_order(tmp_path):
    """Another window is another order, so a fit that resumed with it would be another fit."""
    path = write_shards(tmp_path, 1000, 1)
    train, other = make_streamed_feed(path, 600), make_streamed_feed(path, 300)
    with pytest.raises(Cut):
        fit(Model(), train, VALID, training(checkpoint="0s"), tmp_path, cut_after(5), seed=5)
    with pytest.raises(TrainingError, match=r"'readers' is 12 there and 6 here"):
        fit(Model(), other, VALID, training(), tmp_path, seed=5, resume=True)
    other.examples.readers = 12  # the setter of a cached property
    with pytest.raises(TrainingError, match=r"'shuffled together' is 600 there and 300 here"):
        fit(Model(), other, VALID, training(), tmp_path, seed=5, resume=True)
    assert fit(Model(), train, VALID, training(threads=2), tmp_path, seed=5, resume=True).epochs == 3


def test_a_fit_that_lost_a_shard_resumes_when_it_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr("mgoe.data.example_file.OPEN_SHARDS", 1)
    path = write_shards(tmp_path, 3000, 1)
    shard, whole, model = path / "part-00001.parquet", Model(), Model()
    fit(whole, make_streamed_feed(path), VALID, training(), tmp_path / "whole", seed=5)
    held = shard.read_bytes()
    settings = training(checkpoint="0s")

    def lose(now):
        if now.step == 14:
            shard.unlink()

    with pytest.raises(DataError, match=r"part-00001.parquet: cannot be read .*; put the file back"):
        fit(Model(), make_streamed_feed(path), VALID, settings, tmp_path / "cut", lose, seed=5)
    shard.write_bytes(held)
    fit(model, make_streamed_feed(path), VALID, settings, tmp_path / "cut", seed=5, resume=True)
    assert equal(weights(model), weights(whole))


def test_too_little_disk_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("mgoe.training.resume.shutil.disk_usage", lambda path: SimpleNamespace(free=9))
    with pytest.raises(
        TrainingError,
        match=r"checkpoints: training needs .* GB for 3 checkpoints and the best weights, found 0.00 GB free",
    ):
        fit(Model(), TRAIN, VALID, training(), tmp_path)


@contextmanager
def file_size_limit(size: int):
    """Limit the size of files, so that a write fails in its middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_earlier_checkpoints_from_which_the_fit_resumes(tmp_path):
    whole = Model()
    fit(whole, TRAIN, VALID, training(), tmp_path / "whole", seed=5)
    settings, out, full = training(checkpoint="0s"), tmp_path / "cut", ExitStack()

    def fill(progress):
        if progress.step == 7:
            full.enter_context(file_size_limit(1000))

    with (
        full,
        pytest.raises(
            TrainingError,
            match=r"0000000007.safetensors: the checkpoint cannot be written: .*; free space or",
        ),
    ):
        fit(Model(), TRAIN, VALID, settings, out, on_progress=fill, seed=5)
    assert [file.stem for file in sorted((out / "checkpoints").iterdir())] == [
        f"{step:010d}" for step in (5, 6)
    ]
    model = Model(seed=3)
    fit(model, TRAIN, VALID, settings, out, seed=5, resume=True)
    assert equal(weights(model), weights(whole))


def test_the_disk_that_training_needs_is_what_its_checkpoints_take(tmp_path, monkeypatch):
    fit(Model(), TRAIN, VALID, training(), tmp_path / "first")
    (file, *_) = (tmp_path / "first" / "checkpoints").iterdir()
    state = sum(
        tensor.nbytes for name, tensor in load_checkpoint(file)[0].items() if name not in ("losses", "random")
    )
    monkeypatch.setattr(
        "mgoe.training.resume.shutil.disk_usage", lambda path: SimpleNamespace(free=4 * state - 1)
    )
    with pytest.raises(TrainingError, match="checkpoints: training needs"):
        fit(Model(), TRAIN, VALID, training(), tmp_path / "second")
    monkeypatch.setattr(
        "mgoe.training.resume.shutil.disk_usage", lambda path: SimpleNamespace(free=4 * state)
    )
    fit(Model(), TRAIN, VALID, training(epochs=1), tmp_path / "second")


def test_a_fit_resumes_on_a_disk_filled_by_its_own_files(tmp_path, monkeypatch):
    """New files replace its own, and a half-written file of a killed process is removed."""
    with pytest.raises(Cut):
        fit_with_a_checkpoint_every_step(tmp_path, Model(), 14)
    tensors = load_checkpoint(max((tmp_path / "checkpoints").iterdir()))[0]
    state = sum(tensor.nbytes for name, tensor in tensors.items() if name not in ("losses", "random"))

    def taken():
        return sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())

    disk = taken() + 2 * state  # half of what a fit asks for is left
    (tmp_path / "checkpoints" / ".0000000015.safetensors.7.tmp").write_bytes(bytes(10**6))

    def usage(path):
        return SimpleNamespace(free=disk - taken())

    monkeypatch.setattr("mgoe.training.resume.shutil.disk_usage", usage)
    assert usage(tmp_path).free < 0
    assert fit_with_a_checkpoint_every_step(tmp_path, Model()).epochs == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_stops(tmp_path, number):
    before = signal.signal(number, signal.default_int_handler)

    def ask(progress):
        if progress.step == 7:
            signal.raise_signal(number)

    try:
        with pytest.raises(KeyboardInterrupt):
            fit(Model(), TRAIN, VALID, training(), tmp_path, on_progress=ask, seed=5)
    finally:
        signal.signal(number, before)
    (file,) = (tmp_path / "checkpoints").iterdir()
    assert load_checkpoint(file)[1]["state"]["steps"] == 7


@contextmanager
def handled(number, handler):
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fit_has_no_result_whoever_handles_the_signal(tmp_path, first):
    """Ctrl-C reaches a child that ignores it, and SIGTERM from its parent follows at once."""

    def ask(progress):
        if progress.step == 7:
            signal.raise_signal(first)
            signal.raise_signal(signal.SIGTERM if first == signal.SIGINT else signal.SIGINT)

    with (
        handled(signal.SIGINT, signal.SIG_IGN),
        handled(signal.SIGTERM, lambda *_: None),
        pytest.raises(KeyboardInterrupt),
    ):
        fit(Model(), TRAIN, VALID, training(), tmp_path, on_progress=ask, seed=5)
    assert Checkpoints(tmp_path / "checkpoints").latest() is not None


def test_an_ignored_signal_stays_ignored(tmp_path):
    with handled(signal.SIGINT, signal.SIG_IGN):
        found = fit(
            Model(),
            TRAIN,
            VALID,
            training(),
            tmp_path,
            on_progress=lambda _: signal.raise_signal(signal.SIGINT),
            seed=5,
        )
    assert found.epochs == training().epochs


def test_a_stop_of_another_process_leaves_no_result(tmp_path, monkeypatch):
    """Seen from a process that was not asked itself."""
    monkeypatch.setattr(
        "mgoe.training.distributed.process_group.ProcessGroup.any", lambda self, *asked: (True, False)
    )
    with pytest.raises(KeyboardInterrupt):
        fit(Model(), TRAIN, VALID, training(), tmp_path, seed=5)
    assert Checkpoints(tmp_path / "checkpoints").latest() is not None


def test_a_second_request_is_obeyed_at_once():
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), deferred() as asked:  # noqa: PT012 - the order within is what is tested
            assert not asked()
            signal.raise_signal(signal.SIGTERM)
            assert asked()
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("it continued")
    finally:
        signal.signal(signal.SIGTERM, before)


PROGRAM = """
import sys
from pathlib import Path
from tests.training.test_loop import TRAIN, VALID, training
from tests.training.fakes import Model
from mgoe.training import fit
print("ready", flush=True)
settings = training(epochs=int(sys.argv[2]), patience=40, checkpoint="0s")
fit(Model(dropout=0.2), TRAIN, VALID, settings, Path(sys.argv[1]), seed=5, resume=True)
"""


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_fit_killed_at_any_moment_resumes_to_the_same_numbers(tmp_path, uninterrupted, kill):
    longest, kills = (3, 2) if SOAK else (1, 1)
    for wait in np.random.default_rng(kill).uniform(0, longest, kills):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(LONG)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.kill()
    model = Model(dropout=0.2)
    found = fit(model, TRAIN, VALID, training(epochs=LONG, patience=40), tmp_path, seed=5, resume=True)
    expected, expected_weights = uninterrupted
    assert history(found) == expected
    assert equal(weights(model), expected_weights)
    assert json.loads((tmp_path / "curves.json").read_text())["best_epoch"] == found.best_epoch
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    model = Model(dropout=0.2)
    result = fit(
        model, TRAIN, VALID, training(epochs=LONG, patience=40), tmp_path_factory.mktemp("whole"), seed=5
    )
    return history(result), weights(model)


def test_what_a_finished_fit_wrote_is_there_after_it_is_gone_on_with(tmp_path):
    written = []
    for _ in range(2):
        fit(Model(dropout=0.2), TRAIN, VALID, training(epochs=3), tmp_path, seed=5, resume=True)
        written.append(json.loads((tmp_path / "curves.json").read_text()))
    assert written[0]["best_epoch"] > 0
    assert written[1] == written[0]


def test_damaged_checkpoints_count_for_nothing(tmp_path):
    """A fit that starts again beside them keeps what it saves."""
    checkpoints = Checkpoints(tmp_path)
    for step in (8, 9):
        (tmp_path / f"{step:010d}.safetensors").write_bytes(b"damaged")
    assert checkpoints.latest() is None
    assert (
        len(list(tmp_path.iterdir())) == 2
    )  # what cannot be read now may be read later, until something whole follows it
    for step in (1, 2, 3):
        checkpoints.save(step, {"a": torch.zeros(1)}, {"step": step})
        found = checkpoints.latest()
        assert found is not None
        assert found[1]["step"] == step


def test_checkpoints_without_any_file(tmp_path):
    assert Checkpoints(tmp_path / "none").latest() is None
    save_checkpoint(tmp_path / "0000000003.safetensors", {"a": torch.zeros(1)}, {})
    assert Checkpoints(tmp_path).latest() is not None
