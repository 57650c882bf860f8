"""Every option of every command reaches what the command calls, or changes what it prints.

A command runs here without the library: all that it imports of it is a recorder. With another value of an
option the recorded calls, or what is printed, must differ.
"""

import builtins
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints
from unittest.mock import MagicMock

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from mgoe import experiments
from mgoe.cli import app
from mgoe.errors import MgoeError

REAL = ("mgoe._util", "mgoe.cli", "mgoe.errors")
"""Modules of the library that commands keep."""
TEXTS = {
    "at_least": "click=0.5",
    "context": "device=x",
    "guard": "click per unit=0.01",
    "max_per": "shop=3",
    "part": "cold",
    "seeds": "7",
    "split": "valid",
    "where": "color=blue",
}
"""Values of options that a command reads itself."""
SERVICE, SPARK = {"state": Path("state")}, {"engine": "spark", "out": "scores"}
VISITS: dict[str, Any] = {"serve": Path("bundle"), "world": Path("log")}
NEEDS: dict[str, dict[str, Any]] = {
    "evaluate jobs": {"pairs": "pairs.parquet"},
    "evaluate model": {"rolling": 3},
    "evaluate threshold": {"rolling": 3},
    "events": SERVICE,
    "experiment estimate arm": {"file": Path("ab.yaml")},
    "experiment estimate file": {"arm": "another-arm"},
    "exposures": SERVICE,
    "log export": {**SERVICE, "kind": "exposures"},
    "init overwrite": {"out": Path("old.yaml")},
    "predict engine": {"out": "scores"},
    "predict master": SPARK,
    "predict overwrite": SPARK,
    "recommend": {"users": ["somebody"]},
    "recommend users": {},
    "recommend file": {},
    "recommend engine": {"file": "users.parquet", "out": "lists"},
    "recommend jobs": {"file": "users.parquet"},
    "recommend master": SPARK | {"file": "users.parquet"},
    "recommend out": {"file": "users.parquet"},
    "recommend overwrite": SPARK | {"file": "users.parquet"},
    "simulate serve": {"world": Path("log")},
    **{f"simulate {name}": VISITS for name in ("world", "days", "experiment", "http", "engine")},
}
"""Other arguments without which a command, or one of its options, is refused or has no use for it."""


def commands(group: typer.Typer, place: str = "") -> Iterator[tuple[str, Callable[..., None]]]:
    """Return the commands of a group by what is typed."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{place}{command.name or command.callback.__name__}", command.callback
    for part in group.registered_groups:
        assert part.typer_instance is not None
        yield from commands(part.typer_instance, f"{place}{part.name or part.typer_instance.info.name} ")


COMMANDS = dict(commands(app))


def kinds(annotation: Any) -> tuple[type, ...]:
    """Return what a value may be; the values themselves of a literal."""
    if get_origin(annotation) is Annotated:
        return kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(kind for part in get_args(annotation) for kind in kinds(part))
    return (annotation,)


def another(name: str, annotation: Any, usual: Any) -> Any:
    """Return a value of an argument that is not the usual one."""
    kind = next(kind for kind in kinds(annotation) if kind is not type(None))
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != usual)
    if get_origin(kind) is list:
        return [another(name, get_args(kind)[0], None)]
    if kind is bool:
        return not usual
    if kind in (int, float):
        return kind((usual if isinstance(usual, int | float) else 0) + 7)
    return kind(TEXTS.get(name, f"another-{name}"))


def required(command: Callable[..., None]) -> dict[str, Any]:
    """Return values of the arguments that a command cannot do without."""
    hints = get_type_hints(command, include_extras=True)
    missing = [name for name, of in inspect.signature(command).parameters.items() if of.default is of.empty]
    return {name: another(name, hints[name], None) for name in missing}


OPTIONS = [
    (command, name)
    for command, called in COMMANDS.items()
    for name, of in inspect.signature(called).parameters.items()
    if of.default is not of.empty and name != "as_json"  # tests of the answers run each command with it
]


class Recorder(MagicMock):
    """Keeps all calls, and can be printed as a number."""

    def __format__(self, how: str) -> str:
        return "0"


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recorder:
    """Stands for the library in what commands import."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mgoe-demo" / "log").mkdir(parents=True)
    for old in (tmp_path / "mgoe-demo" / "demo.yaml", tmp_path / "old.yaml"):
        old.touch()
    library, load = Recorder(name="mgoe"), builtins.__import__
    library.data.guess.return_value = "data: {}"
    arm = SimpleNamespace(name="another-arm", explore=None)
    library.config.load_experiment.return_value.arms = [arm]
    library.datasets.prepare.return_value = SimpleNamespace(path=Path("log"))
    cells = [
        {"split": split, "slice": part} for split in ("new", "test", "valid") for part in ("all", "cold")
    ]
    library.experiments.measured.return_value = library.batch.measure_pairs.return_value = cells

    def stands_for(name: str) -> bool:
        return name == "mgoe" or (name.startswith("mgoe.") and not name.startswith(REAL))

    def find(name: str) -> Any:
        found = library
        for part in name.split(".")[1:]:
            found = getattr(found, part)
        return found

    def load_module(
        name: str, globals: Any = None, locals: Any = None, names: Any = (), level: int = 0
    ) -> Any:
        if globals and str(globals.get("__name__")).startswith("mgoe.cli") and names:
            if name == "mgoe":
                return library
            if stands_for(name):
                return find(name)
        return load(name, globals, locals, names, level)

    for name, module in [*sys.modules.items()]:
        for key, value in [*vars(module).items()] if name.startswith("mgoe.cli") else ():
            home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
            if isinstance(home, str) and stands_for(home) and not isinstance(value, type):
                stand_in = find(home)
                monkeypatch.setattr(
                    module, key, stand_in if inspect.ismodule(value) else getattr(stand_in, key)
                )
    monkeypatch.setattr(builtins, "__import__", load_module)
    return library


def effect(command: str, recorder: Recorder, printed: pytest.CaptureFixture[str], **values: Any) -> str:
    """Return what a command calls and prints with these values, and how it ends."""
    recorder.reset_mock()  # keeps what calls return
    end = ""
    try:
        COMMANDS[command](**required(COMMANDS[command]) | values)
    except MgoeError as error:
        end = f"refused: {error}"
    except (Exception, typer.Exit) as error:  # what a recorder returns cannot be shown
        end = f"{type(error).__name__}: {error}"
    captured = printed.readouterr()
    return re.sub(r" id='\d+'| at 0x\w+", "", f"{recorder.mock_calls}{captured.out}{captured.err}{end}")


@pytest.mark.parametrize(("command", "name"), OPTIONS, ids=[f"{command} {name}" for command, name in OPTIONS])
def test_an_option_reaches_what_its_command_calls(
    recorder: Recorder, capsys: pytest.CaptureFixture[str], command: str, name: str
):
    called = COMMANDS[command]
    usual = inspect.signature(called).parameters[name].default
    value = another(name, get_type_hints(called, include_extras=True)[name], usual)
    others = NEEDS.get(f"{command} {name}", NEEDS.get(command, {}))
    if name == "redis_password_file":
        others = {**others, "redis": "redis://store"}
    without = effect(command, recorder, capsys, **others)
    assert without == effect(command, recorder, capsys, **others)
    found = effect(command, recorder, capsys, **others | {name: value})
    assert found != without
    assert "refused: " not in found


def test_options_of_serve_are_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the real settings, which refuse what they do not know."""
    pytest.importorskip("uvicorn", reason="not installed: pip install -e '.[serve]'")
    told: list[Any] = []
    monkeypatch.setattr("mgoe.serving.http.supervisor.serve", told.append)
    words = (
        "serve a-bundle --host ::1 --port 1 --workers 2 --state s --redis redis://r --redis-password-file p "
        "--window 6h --shadow a-shadow --shadow-share 0.5 --experiment e.yaml --engine torch "
        "--precision bfloat16 --token-file t --adopt --public --max-body 2048 "
        "--max-candidates 3 --max-events 4 --max-requests 5 --timeout 6 "
        "--no-access-log"
    )
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    assert told[0].model_dump(mode="json") == {
        "bundle": "a-bundle", "host": "::1", "port": 1, "workers": 2, "state": "s", "redis": "redis://r",
        "redis_password_file": "p", "window": "6h", "shadow": "a-shadow", "shadow_share": 0.5,
        "experiment": ["e.yaml"],
        "runtime": {"engine": "torch", "precision": "bfloat16"}, "token_file": "t",
        "adopt": True, "public": True,
        "access_log": False,
        "limits": {"body": 2048, "candidates": 3, "events": 4, "requests": 5, "seconds": 6.0},
    }  # fmt: skip


def test_rows_are_of_the_split_and_the_seed_that_are_asked_for(finished: Path, tmp_path: Path):
    for split, seed in (("valid", 0), ("test", 0)):
        out = tmp_path / f"{split}.csv"
        words = ["rows", finished, "--out", out, "--split", split, "--seed", seed]
        assert CliRunner().invoke(app, [*map(str, words)]).exit_code == 0
        expected = experiments.rows(finished, split, seed)
        assert pd.read_csv(out)["row"].tolist() == expected["row"].tolist()
    assert (tmp_path / "valid.csv").read_text() != (tmp_path / "test.csv").read_text()
    refused = CliRunner().invoke(
        app, ["rows", str(finished), "--out", str(tmp_path / "7.csv"), "--seed", "7"]
    )
    assert refused.exit_code == 2
