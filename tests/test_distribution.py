"""The wheel and the source distribution: what is in them, and that they install and run."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from runpy import run_path

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


def git(step: str, folder: Path) -> None:
    words = {
        "init": ["init", "--quiet"],
        "add": ["add", "."],
        "commit": ["commit", "--quiet", "--allow-empty", "--message", "a change"],
        "tag": ["tag", "v1.2.3"],
    }
    run("git", "-c", "user.name=a", "-c", "user.email=a@localhost", *words[step], cwd=folder)


def released(folder: Path) -> str:
    """Commit everything under the tag of a release, and return the commit."""
    for step in ("add", "commit"):
        git(step, folder)
    run("git", "tag", "--force", "v1.2.3", cwd=folder)
    return run("git", "rev-parse", "HEAD", cwd=folder)


def version_of(wheel: Path) -> str:
    return wheel.name.split("-")[1]


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
    assert f"version: {release[1]}\n" in (ROOT / "CITATION.cff").read_text()
    [source] = built.glob("*.tar.gz")
    assert source.name == f"mgoe-{version_of(wheel)}.tar.gz"


@pytest.mark.parametrize(
    ("steps", "version"),
    [
        ([], r"0\.0"),
        (["init", "add", "commit"], r"0\.1\.dev1\+g[0-9a-f]+"),
        (["init", "add", "commit", "tag"], r"1\.2\.3"),
        (["init", "add", "commit", "tag", "commit"], r"1\.2\.4\.dev1\+g[0-9a-f]+"),
    ],
    ids=["files-alone", "no-tag", "tag", "after-a-tag"],
)
def test_the_version_is_that_of_the_tag(steps: list[str], version: str, tmp_path: Path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for step in steps:
        git(step, tmp_path)
    assert re.fullmatch(version, run(sys.executable, "-m", "hatchling", "version", cwd=tmp_path).strip())


def test_the_build_of_the_image_states_its_version(tmp_path: Path):
    name = "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MGOE"
    assert f"{name}=$VERSION" in (ROOT / "Dockerfile").read_text()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    said = run(sys.executable, "-m", "hatchling", "version", cwd=tmp_path, **{name: "4.5.6"})
    assert said.strip() == "4.5.6"


def test_a_release_is_of_one_version_that_tag_changelog_and_citation_name(tmp_path: Path):
    benchmarks = [f"benchmarks/{name}.py" for name in ("__init__", "figures", "measure", "short")]
    own = ["pyproject.toml", "Makefile", "README.md", "LICENSE", ".gitignore", "src/mgoe/__init__.py"]
    code = "src/mgoe/_util/processes.py"
    for name in [*own, *benchmarks, code]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CITATION.cff").write_text("version: 1.2.3\n")
    make = ["make", "release", f"BIN={Path(sys.executable).parent}", "READY="]
    for heading, steps, refused in [
        ("## 1.2.3 (not released yet)", "init add commit tag", "this commit is version 1.2.3"),
        ("## 1.2.3 (2026-12-01)", "", "no uncommitted files"),
        ("## 1.2.3 (2026-12-01)", "add commit", "this commit is version 1.2.4.dev1"),
    ]:
        (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
        for step in steps.split():
            git(step, tmp_path)
        done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode
        assert refused in done.stderr
    (tmp_path / "README.md").write_text("# A page without figures\n")
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    page, file = tmp_path / "docs" / "page.md", tmp_path / "docs" / "figures" / "one.json"
    figures = {"commands": ["mgoe run"], "values": [{"name": "seconds", "value": 2.0, "unit": "s"}]}
    figures |= {"area": "line", "date": "2026-12-01", "commit": released(tmp_path)[:8]}
    for shown, known, refused in [
        (
            "2",
            {"commit": None},
            "one.json: it must say when and by which commit was measured, found no commit",
        ),
        ("3", {}, "page.md: it must show what its files hold"),
    ]:
        page.write_text(f"`mgoe run` took {shown} s<!-- figure one seconds -->.\n")
        file.write_text(json.dumps(figures | known))
        released(tmp_path)
        done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode
        assert refused in done.stderr
    page.write_text(page.read_text().replace("3 s", "2 s"))
    (tmp_path / code).write_text((tmp_path / code).read_text() + "\nCHANGED = 1\n")  # since it was measured
    released(tmp_path)
    run(*make, cwd=tmp_path)
    names = {"mgoe-1.2.3-py3-none-any.whl", "mgoe-1.2.3.tar.gz", "SHA256SUMS"}
    assert {file.name for file in (tmp_path / "dist").iterdir()} == names
    assert run("sha256sum", "--check", "SHA256SUMS", cwd=tmp_path / "dist").count(": OK") == 2


def test_source_without_an_installation_says_that_its_version_is_unknown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [])
    assert run_path(str(Path(mgoe.__file__).with_name("_util") / "version.py"))["__version__"] == "0.0"


def test_the_wheel_runs_where_it_is_installed(wheel: Path, tmp_path: Path):
    place = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place, wheel, cwd=tmp_path)
    where = "import mgoe; print(mgoe.__file__, mgoe.__version__)"
    found = run(sys.executable, "-c", where, cwd=tmp_path, PYTHONPATH=str(place))
    assert found.split() == [str(place / "mgoe" / "__init__.py"), version_of(wheel)]
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
