"""The wheel and the source distribution: what is in them, and that they install and run."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import mgoe
from tests.effort import slow

ROOT = Path(__file__).parents[1]


def run(*words: object, cwd: Path, **environment: str) -> str:
    """Run a command and return what it printed; a failure shows that."""
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, the wheel made from the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [found] = built.glob("*.whl")
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    package = {
        file.relative_to(ROOT / "src").as_posix()
        for file in (ROOT / "src" / "mgoe").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    kinds = {Path(name).suffix for name in package}
    assert {".typed", ".html", ".j2", ".css", ".js", ".yaml"} <= kinds
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == package
    assert len(names) == len(set(names))


def test_the_source_distribution_holds_neither_tests_nor_data(built: Path, wheel: Path):
    [file] = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames()]
    files = "pyproject.toml PKG-INFO README.md LICENSE CHANGELOG.md CITATION.cff .gitignore"
    assert {name.split("/")[0] for name in names} == {"src", *files.split()}
    assert file.stat().st_size + wheel.stat().st_size < 2**22


def test_the_metadata_are_in_order(built: Path, wheel: Path):
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    release = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert release is not None
    assert f"-{release[1]}-" in wheel.name
    assert release[1] == mgoe.__version__
    assert f"version: {release[1]}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_wheel_runs_where_it_is_installed(wheel: Path, tmp_path: Path):
    place = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place, wheel, cwd=tmp_path)
    where = "import mgoe; print(mgoe.__file__, mgoe.__version__)"
    found = run(sys.executable, "-c", where, cwd=tmp_path, PYTHONPATH=str(place))
    assert found.split() == [str(place / "mgoe" / "__init__.py"), mgoe.__version__]
    assert "mgoe demo" in run(place / "bin" / "mgoe", "--help", cwd=tmp_path, PYTHONPATH=str(place))


@slow
def test_a_fresh_environment_with_the_wheel_alone_runs_the_demo(wheel: Path, tmp_path: Path):
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    programs = tmp_path / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "-q", wheel, cwd=tmp_path, PYTHONPATH="")
    run(programs / "mgoe", "doctor", cwd=tmp_path, PYTHONPATH="")
    shown = run(programs / "mgoe", "demo", cwd=tmp_path, PYTHONPATH="")
    assert int(re.search(r"of the reachable gain over chance: mgoe (\d+) %", shown)[1]) >= 85
    assert len(re.findall(r"^item \d+: click", shown, re.MULTILINE)) == 3
    assert (tmp_path / "mgoe-demo" / "run" / "report.html").exists()
