"""The folder of a run ends without what killed processes left."""

from pathlib import Path

from mgoe.pipeline.folder import run_folder


def test_what_a_killed_process_still_writes_goes_when_the_run_ends(tmp_path: Path):
    """Workers of Spark may outlive the process that started them, and write to a folder that was removed."""
    out, left = tmp_path / "run", Path(".data.1.partial")
    (out / left).mkdir(parents=True)
    (out / "run.json").write_text('{"state": "unfinished"}')
    with run_folder(out, overwrite=False):
        assert not (out / left).exists()
        (out / left / "work").mkdir(parents=True)
    assert [file.name for file in out.iterdir()] == ["run.json"]
