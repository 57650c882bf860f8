"""The commands of public data sets, from a folder in the published layout to a trained model."""

import json
from pathlib import Path

import pytest

from mgoe.datasets import DATA_SETS
from tests.cli.conftest import Mgoe
from tests.datasets import layouts
from tests.effort import SOAK


def test_list(mgoe: Mgoe):
    found = json.loads(mgoe("data", "list", "--json").stdout)
    assert [row["name"] for row in found] == list(DATA_SETS)
    table = mgoe("data", "list").stdout.splitlines()
    assert len(table) == len(DATA_SETS) + 1
    assert all(word in table[0] for word in ("name", "form", "tasks", "size", "license"))


def test_describe(mgoe: Mgoe):
    found = json.loads(mgoe("data", "describe", "movielens-1m", "--json").stdout)
    assert found["downloads"] == [
        {
            "address": "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
            "bytes": None,
            "md5": "c4d9eecfca2ab87c1945afe126590906",
        }
    ]
    assert "MacGNN" in mgoe("data", "describe", "movielens-1m").stdout
    wrong = mgoe("data", "describe", "movielens-1")
    assert wrong.exit_code == 2
    assert "did you mean 'movielens-1m'?" in wrong.stderr


def test_a_set_without_an_address(mgoe: Mgoe, tmp_path: Path):
    result = mgoe("data", "fetch", "ali-ccp", "--out", tmp_path / "raw")
    assert result.exit_code == 2
    assert "https://tianchi.aliyun.com/dataset/408" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("name", "protocol"), [("kuairand-pure", "published"), *[("taobao", "time")] * SOAK])
def test_from_published_files_to_a_model(mgoe: Mgoe, tmp_path: Path, name: str, protocol: str):
    layouts.LAYOUTS[name](tmp_path / "raw")
    prepared = mgoe("data", "prepare", name, "--from", tmp_path / "raw", "--out", tmp_path / "log", "--json")
    config = Path(json.loads(prepared.stdout)["path"], f"{protocol}.yaml")
    small = [
        "models=[mgoe]",
        "training.epochs=1",
        "graph.rank=8",
        "graph.recents=5",
        "evaluation.ranking_queries=5",
    ]
    sets = [word for key in small for word in ("--set", key)]
    result = mgoe("run", config, "--out", tmp_path / "run", *sets, "--json")
    assert result.exit_code == 0, result.stderr
    tasks = {
        row["task"]
        for row in json.loads(result.stdout)["metrics"]
        if row["metric"] == "auc" and row["split"] == "test"
    }
    assert tasks >= set(DATA_SETS[name].tasks)


def test_prepare_says_what_it_wrote(mgoe: Mgoe, tmp_path: Path):
    layouts.taobao(tmp_path / "raw")
    result = mgoe("data", "prepare", "taobao", "--from", tmp_path / "raw", "--out", tmp_path / "log")
    assert "outside the nine days" in result.stdout
    assert "time.yaml --out FOLDER" in result.stderr
    again = mgoe("data", "prepare", "taobao", "--from", tmp_path / "raw", "--out", tmp_path / "log")
    assert again.exit_code == 2
    assert "overwrite" in again.stderr
