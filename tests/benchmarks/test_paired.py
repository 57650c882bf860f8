"""Two versions of a model, from lines that are kept."""

import json
from pathlib import Path

import pytest

from benchmarks import paired

KEPT = [str(file) for file in sorted(Path("benchmarks/results/arena-kuairand").glob("seed-[01].jsonl"))]


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict]:
    return {line["name"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}


def test_a_model_is_level_with_itself(capsys: pytest.CaptureFixture[str]):
    paired.main([*KEPT, "--new", *KEPT])
    found = printed(capsys)
    assert all(found[f"paired.lead.mean{end}"]["value"] == 0 for end in ("", ".low", ".high"))
    assert found["paired.cpu_s"]["ratio"] == 1


def test_the_latest_line_of_a_seed_counts_and_its_lead_is_that_of_the_means(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    lines = [json.loads(line) for file in KEPT for line in Path(file).read_text().splitlines()]
    other = [
        line | {"model": "mgoe", "at": "2100-01-01"}
        for line in lines
        if line["model"] == "shared-bottom+mgoe" and line["state"] == "finished"
    ]
    newer = tmp_path / "newer.jsonl"
    newer.write_text("".join(json.dumps(line) + "\n" for line in other))
    paired.main([*KEPT, "--new", *KEPT, str(newer)])
    found, mean = printed(capsys), "test.all.ranking"
    theirs = [line[mean] for line in lines if line["model"] == "mgoe" and line["state"] == "finished"]
    lead = sum(line[mean] for line in other) / len(other) - sum(theirs) / len(theirs)
    assert found["paired.lead.mean"]["value"] == pytest.approx(lead, abs=1e-6)
    assert found["paired.lead.mean.low"]["value"] < lead < found["paired.lead.mean.high"]["value"]


def test_the_older_one_may_be_another_model(capsys: pytest.CaptureFixture[str]):
    paired.main([*KEPT, "--new", *KEPT, "--against", "rates"])
    found = printed(capsys)
    lead, mean = found["paired.lead.mean"], found["paired.mean"]
    assert lead["value"] == pytest.approx(mean["value"] - mean["against"], abs=1e-5)
    assert mean["against"] < mean["value"]
    assert found["paired.mean.spread"]["against"] < found["paired.mean.spread"]["value"]


def test_no_common_seed_is_said(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        paired.main([KEPT[0], "--new", KEPT[1]])
    assert "a seed in common" in capsys.readouterr().err
