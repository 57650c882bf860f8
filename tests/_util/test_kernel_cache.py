"""Where numba caches compiled kernels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

READ_ONLY = """
import os, tempfile
real, made, private = os.access, tempfile.TemporaryFile, os.environ["PRIVATE"]
os.access = lambda path, mode: str(path).startswith(private) and real(path, mode)
def temporary(*args, dir=None, **kwargs):
    if dir is not None and not str(dir).startswith(private):
        raise OSError(30, "Read-only file system")
    return made(*args, dir=dir, **kwargs)
tempfile.TemporaryFile = temporary
import mgoe.graph.pair_rows
print(os.environ.get("NUMBA_CACHE_DIR", ""))
"""
"""A process that may write in one folder alone, as under a service manager that hardens it."""


def started(private: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "PYTHONWARNINGS")
    }
    environment = kept | {"PRIVATE": str(private), "TMPDIR": str(private)} | changes
    return subprocess.run(
        [sys.executable, "-c", READ_ONLY], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("variable", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_place_that_is_named_is_taken(tmp_path: Path, variable: str):
    found = started(tmp_path, **{variable: str(tmp_path / "kept")})
    assert found.returncode == 0, found.stderr
    assert "RuntimeWarning" not in found.stderr
    assert found.stdout.strip() == (str(tmp_path / "kept") if variable == "NUMBA_CACHE_DIR" else "")


def test_without_one_kernels_are_compiled_for_a_process_and_it_says_so(tmp_path: Path):
    found = started(tmp_path)
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).parent == tmp_path
    assert "RuntimeWarning: neither the library's folder nor" in found.stderr
    assert "set NUMBA_CACHE_DIR to a writable folder" in found.stderr
    assert list(tmp_path.iterdir()) == []  # it is gone with the process
