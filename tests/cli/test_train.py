"""`mgoe train` resumes, and trains on many processes as on one. Examples are streamed from disk."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import yaml
from torch.distributed import TCPStore

import mgoe as library
from mgoe import experiments
from mgoe.config import RunSettings, TrainingSettings
from mgoe.evaluation import measure
from mgoe.pipeline.inputs import Inputs
from mgoe.pipeline.values import FREE
from mgoe.training import CHECKPOINTS, Feed, ProcessGroup, load_checkpoint, predict, save_checkpoint
from mgoe.training.resume import MAY_CHANGE
from tests.cli.conftest import Mgoe
from tests.cli.test_bad_input import assert_refused
from tests.effort import SOAK, slow
from tests.sharing import Shared
from tests.training.distributed.side_by_side import together

CELL = Path("cells", "mgoe", "0")
EPOCHS = 12 if SOAK else 3
TRAINING = {
    "epochs": EPOCHS,
    "patience": EPOCHS,
    "batch_size": 512,
    "precision": "float32",
    "checkpoint": "0s",
}
LITTLE = {"train": 1e-5, "valid": 1e-5, "test": 1e-5}
"""Shares of the memory so small that all examples are streamed."""
STREAMING = f"""
from mgoe.cli import main
from mgoe.pipeline import cell
cell.EXAMPLE_SHARES |= {LITTLE}
"""


@pytest.fixture(scope="module", autouse=True)
def streaming() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mgoe.pipeline.cell.EXAMPLE_SHARES", LITTLE)
        yield


@pytest.fixture(scope="module")
def settings(small: RunSettings) -> RunSettings:
    """A fit of some seconds that checkpoints every step."""
    training = small.training.model_copy(update=TRAINING)
    return small.model_copy(update={"models": ["mgoe"], "training": training})


@pytest.fixture(scope="module")
def config(settings: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "train.yaml"
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def alone(settings: RunSettings, shared: Shared) -> Path:
    """The folder of one process that nothing stopped. Read it only."""
    return shared("cli-alone", lambda out: experiments.train(settings, out, show_progress=False))


@pytest.fixture
def built(alone: Path, tmp_path: Path) -> Path:
    """An unfinished run whose data and graph are made."""
    return shutil.copytree(alone, tmp_path / "run", ignore=shutil.ignore_patterns("cells", "bundle"))


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch):
    """Do something when so many steps are done, once."""

    def plan(step: int, act) -> None:
        waiting = [act]

        @contextmanager
        def bar(*_):
            yield lambda now: waiting.pop()() if now.step == step and waiting else None

        monkeypatch.setattr("mgoe.training.loop.REPORT_STEPS", 1)
        monkeypatch.setattr("mgoe.pipeline.cell.progress_bar", bar)

    return plan


def curves(out: Path) -> list[dict]:
    return json.loads((out / CELL / "curves.json").read_text())["epochs"]


def metrics(out: Path) -> str:
    return (out / CELL / "metrics.json").read_text()


def latest(out: Path) -> Path:
    return max((out / CELL / CHECKPOINTS).glob("*.safetensors"))


def steps_an_epoch(out: Path) -> int:
    return curves(out)[0]["step"]


def stopped_after(step: int, mgoe: Mgoe, config: Path, out: Path, at_step) -> None:
    at_step(step, lambda: signal.raise_signal(signal.SIGTERM))
    result = mgoe("train", config, "--out", out)
    assert result.exit_code == 143
    assert "resumes from there" in result.stderr
    assert load_checkpoint(latest(out))[1]["state"]["steps"] == step


def test_a_stopped_train_resumes_to_the_same_numbers(mgoe, config, alone, built, at_step):
    stopped_after(steps_an_epoch(alone) + 2, mgoe, config, built, at_step)
    (first,) = curves(built)
    result = mgoe("train", config, "--out", built, "--set", "training.checkpoint=1h")
    assert result.exit_code == 0, result.output
    assert curves(built)[0]["seconds"] == first["seconds"]  # the first epoch was not done again
    assert metrics(built) == metrics(alone)
    assert not (built / CELL / CHECKPOINTS).exists()


def test_resume_never_starts_again(mgoe, config, alone, built, at_step):
    stopped_after(steps_an_epoch(alone) + 2, mgoe, config, built, at_step)
    (first,) = curves(built)
    assert mgoe("train", config, "--out", built, "--resume", "never").exit_code == 0
    assert curves(built)[0]["seconds"] != first["seconds"]
    assert metrics(built) == metrics(alone)


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("graph", "another", ("found other graph: another there",)),
        ("seed", 9, ("found other seed: 9 there and 0 here",)),
        ("parameters", {}, ("found other parameters", "is missing there")),
        ("settings", {"learning_rate": 1.0}, ("found other settings",)),
    ],
)
def test_a_checkpoint_of_another_fit(mgoe, config, built, at_step, part, value, words):
    stopped_after(3, mgoe, config, built, at_step)
    tensors, meta = load_checkpoint(latest(built))
    save_checkpoint(latest(built), tensors, meta | {"fit": meta["fit"] | {part: value}})
    assert_refused(
        mgoe("train", config, "--out", built),
        "checkpoint is of another fit",
        *words,
        "start again without resuming",
    )


def test_other_settings_than_those_of_the_unfinished_run(mgoe, config, built):
    change = mgoe("train", config, "--out", built, "--set", "graph.rank=4")
    assert_refused(change, "made with another `graph.rank`", "overwrite it")
    assert mgoe("train", config, "--out", built, "--resume", "sometimes").exit_code == 2


def test_what_may_change_is_the_same_for_a_run_and_for_a_fit():
    assert {*FREE["training"]} == MAY_CHANGE
    assert {*FREE["training"]} <= TrainingSettings.model_fields.keys()


@pytest.mark.parametrize("name", ["train", "history", *["valid", "test"] * SOAK])
def test_a_file_that_disappears_while_it_trains(mgoe, config, alone, built, at_step, name):
    lost, kept = built / "data" / f"{name}.parquet", built / "kept"
    at_step(2, lambda: lost.rename(kept))
    assert_refused(
        mgoe("train", config, "--out", built), f"{name}.parquet: cannot be read", "put the file back"
    )
    assert_refused(mgoe("train", config, "--out", built), f"{name}.parquet", "it is missing")
    kept.rename(lost)
    assert mgoe("train", config, "--out", built).exit_code == 0
    assert metrics(built) == metrics(alone)


def test_a_file_that_is_cut_while_it_trains(mgoe, config, built, at_step):
    lost = built / "data" / "train.parquet"
    at_step(2, lambda: lost.write_bytes(lost.read_bytes()[:900]))
    assert_refused(
        mgoe("train", config, "--out", built), "train.parquet: cannot be read", "put the file back"
    )


# --- many processes ---


def torchrun(
    config: Path, out: Path, *words: str, program: tuple[str, ...] = ("-m", "mgoe")
) -> subprocess.Popen:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *program]
    return subprocess.Popen(
        [*launch, "train", str(config), "--out", str(out), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def same_curve(found: Path, expected: Path) -> None:
    assert len(curves(found)) == EPOCHS
    for mine, theirs in zip(curves(found), curves(expected), strict=True):
        assert mine["losses"] == pytest.approx(theirs["losses"], abs=1e-4)


def measured_alone(out: Path, settings: RunSettings) -> dict[tuple, float]:
    """What one process finds with the weights of a bundle."""
    inputs = Inputs.open(out, settings)
    model = library.load(out / "bundle").model
    found = {}
    for split in ("valid", "test"):
        feed = Feed(inputs.prepared, inputs.graph, inputs.prepared.examples(split), model.needs, inputs.spec)
        rows = measure(
            predict(model, feed),
            feed.examples.labels,
            feed.examples.user,
            inputs.spec.tasks,
            model="mgoe",
            seed=0,
            split=split,
        )
        found |= {(split, row["task"], row["metric"]): row["value"] for row in rows}
    return found


@slow
def test_two_processes_find_what_one_finds(config, settings, alone, built, tmp_path):
    program = tmp_path / "streaming.py"
    program.write_text(f"{STREAMING}\nmain()")
    process = torchrun(config, built, "--json", program=(str(program),))
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "on 2 processes" in stderr
    rows = json.loads(stdout)["metrics"]  # by one of them
    same_curve(built, alone)
    expected = measured_alone(built, settings)
    found = {
        (row["split"], row["task"], row["metric"]): row["value"] for row in rows if row["slice"] == "all"
    }
    for key, value in expected.items():
        if key[2] in ("auc", "gauc", "gauc_users", "gauc_users_skipped", "examples", "positives"):
            assert found[key] == pytest.approx(value, abs=1e-6), key


@slow
@pytest.mark.parametrize("way", ["anew", "continue"])
def test_two_processes_refit_what_one_refits(config, settings, built, tmp_path, way):
    program, one = tmp_path / "streaming.py", shutil.copytree(built, tmp_path / "one")
    program.write_text(f"{STREAMING}\nmain()")
    process = torchrun(config, built, "--set", f"training.refit={way}", program=(str(program),))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    training = settings.training.model_copy(update={"refit": way})
    experiments.train(settings.model_copy(update={"training": training}), one)
    for state in ("tested", "served"):
        epochs = [
            json.loads((run / CELL / state / "curves.json").read_text())["epochs"] for run in (built, one)
        ]
        for mine, theirs in zip(*epochs, strict=True):
            assert mine["losses"] == pytest.approx(theirs["losses"], abs=1e-4)
    assert {library.load(run / "bundle").manifest.weights for run in (built, one)} == {"served"}


def test_what_is_finished_is_not_done_again_by_any_process(settings, alone, tmp_path, monkeypatch):
    monkeypatch.setattr("mgoe.experiments.runs.joined", lambda device: nullcontext(ProcessGroup(1, 2)))
    for name in ("fit_cell", "fit_served"):
        monkeypatch.setattr(f"mgoe.experiments.runs.{name}", lambda *_, **__: pytest.fail("it trains"))
    said = iter([True, False])  # by the first process: it is done, and nothing is to be served anew
    monkeypatch.setattr(ProcessGroup, "agree", lambda self, mine: next(said))
    assert experiments.train(settings, shutil.copytree(alone, tmp_path / "run")) == []


WAITING = """
import signal, sys, time
from contextlib import contextmanager
from pathlib import Path
from mgoe.training import loop

step, here = int(sys.argv.pop(1)), Path(sys.argv.pop(1))

def wait(now):
    if now.step == step:
        before = signal.getsignal(signal.SIGTERM)
        here.touch()
        while signal.getsignal(signal.SIGTERM) is before:  # until a request to stop is noted
            time.sleep(0.01)

@contextmanager
def bar(*_):
    yield wait

cell.progress_bar, loop.REPORT_STEPS = bar, 1
main()
"""
"""`mgoe`, whose first process waits after a step until it is asked to stop."""


@slow
def test_two_processes_are_stopped_and_one_resumes(mgoe, config, alone, built, tmp_path):
    step, waits, program = steps_an_epoch(alone) + 2, tmp_path / "waits", tmp_path / "waiting.py"
    program.write_text(STREAMING + WAITING)
    process = torchrun(config, built, program=(str(program), str(step), str(waits)))
    while process.poll() is None and not waits.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert stderr.count("mgoe: stopped; what was finished is kept") == 1, stderr
    assert "mgoe: torchrun" not in stderr
    done = load_checkpoint(latest(built))[1]["state"]
    assert done["steps"] == step
    assert mgoe("train", config, "--out", built).exit_code == 0
    same_curve(built, alone)
    assert curves(built)[0]["seconds"] == done["curves"][0]["seconds"]


MISTAKES = [
    (
        "training.batch_size=511",
        ("training.batch_size: must be a multiple of the 2 processes, found 511", "another number"),
    ),
    ("data.log=nowhere", ("nowhere: no such file",)),
]


@slow
@pytest.mark.parametrize(("change", "words"), MISTAKES)
def test_processes_that_cannot_train_say_so_once(config, tmp_path, change, words):
    """What they meet through outlives each of them, as that of torchrun does."""
    program = """
import contextlib, os, sys
from mgoe.cli import main
port, out = sys.argv.pop(1), sys.argv.pop(1)
os.environ |= {
    "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"
}
with open(f"{out}/{os.environ['RANK']}", "w") as said, contextlib.redirect_stderr(said):
    try:
        main()
    except SystemExit as end:
        assert end.code == 2
"""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    command = ("train", config, "--out", tmp_path / "run", "--set", change)
    together(2, program, str(store.port), str(tmp_path), *map(str, command))
    assert_said_once("".join((tmp_path / str(rank)).read_text() for rank in range(2)), words)
    if "batch_size" in change:
        assert not (tmp_path / "run").exists()  # nothing was done before


@slow
@pytest.mark.parametrize(("change", "words"), MISTAKES)
def test_torchrun_reports_a_mistake(config, tmp_path, change, words):
    process = torchrun(config, tmp_path / "run", "--set", change)
    stdout, stderr = process.communicate(timeout=120)
    assert stdout == ""
    assert "exitcode  : 2" in stderr
    assert_said_once(stderr, words)


def assert_said_once(stderr: str, words: tuple[str, ...]) -> None:
    (sentence,) = [line for line in stderr.splitlines() if "mgoe: " in line]
    assert all(word in sentence for word in words)
    assert "src/mgoe" not in stderr  # no traceback of ours
