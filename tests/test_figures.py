"""Measured tables and numbers of the pages are those of their files, which say when and by what code."""

import datetime
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from benchmarks.figures import Figures, Pages, measure, read, write
from benchmarks.short import FigureError, Line, Part
from hypothesis import assume, given
from hypothesis import strategies as st

from benchmarks import figures, short
from tests.effort import up_to

ROOT = Path(__file__).parents[1]
PRINTED = [
    '{"name": "speed.seconds.1e6", "value": 61.04, "unit": "s", "against": 122.08, "ratio": 2.0}\n',
    "a word of progress\n",
    '{"name": "speed.rows.1e6", "value": 1620000.0, "unit": "rows/s", "against": null, "ratio": null}\n',
]
PAGE = """# Speed

`python benchmarks/speed.py` took 61 s<!-- figure speed speed.seconds.1e6 -->.

<!-- figures speed -->

| size | seconds | ratio |
|---|---:|---:|
| a million | 61.0 | 2.00 |

*Measured on 1 December 2026 at commit 0123456789, on 2 cores.*

<!-- end -->

That is 1.62 M<!-- figure speed speed.rows.1e6 --> rows per second.
"""
BENCHMARK = """import json, pathlib
value = float(pathlib.Path("benchmarks/value").read_text())
print(json.dumps({"name": "speed.seconds.1e6", "unit": "s", "value": 2 * value, "ratio": 2}))
print(json.dumps({"name": "speed.rows.1e6", "unit": "rows/s", "value": value}))
"""
DAY = datetime.date(2026, 12, 1)


def checkout(folder: Path) -> Path:
    """A checkout with a page, its figures, and their benchmark, which prints twice a value of a file."""
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "speed.py").write_text(BENCHMARK)
    (folder / "benchmarks" / "value").write_text("1")
    (folder / "docs").mkdir()
    (folder / "docs" / "speed.md").write_text(PAGE)
    held = Figures(
        area="line",
        commands=["python benchmarks/speed.py"],
        columns={
            "size": "$label",
            "seconds": "{speed.seconds.$of:.1f}",
            "ratio": "{speed.seconds.$of.ratio:.2f}",
        },
        rows=[{"label": "a million", "of": "1e6"}],
        commit="0123456789",
        date=DAY,
        machine="2 cores",
        values=[Line.model_validate_json(line) for line in PRINTED if line.startswith("{")],
    )
    write(folder / figures.FOLDER / "speed.json", held)
    return folder


def committed(root: Path) -> str:
    """Commit everything in a folder, and return the commit."""
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for words in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "a change"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root, text=True).strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return checkout(tmp_path)


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that examples change in turn."""
    return checkout(tmp_path_factory.mktemp("changing"))


def test_pages_show_what_their_files_hold():
    other = [page.name for page in Pages(ROOT).changed()]
    assert not other, f"{other}: written by hand since `make figures` wrote them; give it again"


def test_the_commands_of_figures_are_of_this_project():
    for file in sorted((ROOT / figures.FOLDER).glob("*.json")):
        for program, first, *_ in map(shlex.split, read(file).commands):
            assert program == "mgoe" or (program == "python" and (ROOT / first).is_file()), file


def test_a_benchmark_that_a_page_names_is_there_or_the_page_names_its_commit():
    pages = {page: page.read_text() for page in Pages(ROOT).pages}
    missing = [
        f"{page.name}: {name}"
        for page, text in pages.items()
        for name in re.findall(r"benchmarks/\w+\.py", text)
        if not (ROOT / name).is_file() and not re.search(r"(commit|revision) [0-9a-f]{7,}\b", text)
    ]
    assert not missing


def test_a_line_of_code_that_changes_makes_no_figure_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A figure is of its day and its commit, whatever was changed since."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    code = tmp_path / "src" / "mgoe" / "_util" / "processes.py"
    code.parent.mkdir(parents=True)
    code.write_text((ROOT / code.relative_to(tmp_path)).read_text() + "\nCHANGED = 1\n")
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    figures.main(["--check"])
    assert Pages(tmp_path).changed() == {}


def test_what_is_written_is_read_and_written_the_same(root: Path):
    file = root / figures.FOLDER / "speed.json"
    before = file.read_text()
    write(file, read(file))
    assert file.read_text() == before
    assert Pages(root).write() == []
    assert (root / "docs" / "speed.md").read_text() == PAGE


@up_to(20)
@given(seconds=st.floats(0, 1e9), rows=st.floats(-1e9, 1e9))
def test_a_page_written_twice_is_the_same_and_another_value_is_seen(
    seconds: float, rows: float, changing: Path
):
    root, page = changing, changing / "docs" / "speed.md"
    page.write_text(PAGE)
    file = root / figures.FOLDER / "speed.json"
    held = read(file)
    values = [
        Line(name="speed.seconds.1e6", value=seconds, unit="s", ratio=3.0),
        Line(name="speed.rows.1e6", value=rows, unit="rows/s"),
    ]
    write(file, held.model_copy(update={"values": values}))
    assert Pages(root).write() == [page]
    text = page.read_text()
    assert f"| {seconds:.1f} | 3.00 |" in text
    assert f"took {seconds:,.0f} s<!--" in text
    assert f"{rows / 1e6:,.2f} M<!--" in text
    assert Pages(root).write() == []


@pytest.mark.parametrize(
    ("printed", "unit", "value", "now"),
    [
        ("61", " s", 1016.7, "1,017"),
        ("1.62", " M", 1_974_000, "1.97"),
        (".9", " of them", 0.84, ".8"),
        (".9", " of them", 1.04, "1.0"),
        ("64", " %", 0.715, "72"),
        ("64", " %, which", 0.715, "72"),
        ("2", " min", 151.0, "3"),
        ("-3", "", 2.0, "2"),
    ],
)
def test_a_number_keeps_its_form(printed: str, unit: str, value: float, now: str):
    text = f"was {printed}{unit}<!-- figure speed x -->"
    assert figures._NUMBER.findall(text)[0][0] == printed
    assert figures._as_printed(value, printed, unit) == now


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("61.0 |", "60.0 |"),
        ("took 61 s", "took 60 s"),
        ("1.62 M", "1.61 M"),
        ("| seconds |", "| time |"),
    ],
)
def test_what_is_changed_by_hand_is_seen(root: Path, was: str, now: str):
    page = root / "docs" / "speed.md"
    page.write_text(PAGE.replace(was, now))
    assert Pages(root).write() == [page]
    assert page.read_text() == PAGE


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("figures speed", "figures fast", r"speed\.md:5: .* no docs/figures/fast\.json"),
        ("figure speed speed.rows", "figure fast rows", r"speed\.md:15: .* no docs/figures/fast\.json"),
        (
            "speed.rows.1e6",
            "speed.rows.1e7",
            r"speed\.md:15: 'speed\.rows\.1e7' must be a value of speed\.json",
        ),
        ("<!-- end -->", "", r"speed\.md:5: markers must be"),
        ("<!-- figures speed -->", "", r"speed\.md:13: markers must be"),
        ("<!-- figures speed -->", "<!--figures speed-->", r"speed\.md:5: markers must be"),
        ("1.62 M<!--", "many <!--", r"speed\.md:15: markers must be"),
        ("| 61.0", "| 61.0<!-- figure speed speed.seconds.1e6 -->", r"speed\.md:9: markers must be"),
        ("That is", "<!-- figures speed -->\n<!-- end -->\n", r"speed\.md:15: .* on a page already"),
        ("`python benchmarks/speed.py`", "It", r"speed\.md: .* show `python benchmarks/speed\.py`"),
    ],
)
def test_a_marker_that_leads_nowhere_fails_with_its_place(root: Path, was: str, now: str, message: str):
    (root / "docs" / "speed.md").write_text(PAGE.replace(was, now))
    with pytest.raises(FigureError, match=message):
        Pages(root).rendered()


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ('"commands"', '"comands"', r"speed\.json: commands: Field required"),
        ('"values"', '"value', r"speed\.json: the file: Invalid JSON"),
        ('"line"', '"lines"', r"speed\.json: area: Input should be 'graph', 'train', "),
        ("0123456789", "main", r"speed\.json: commit: String should match pattern"),
        (
            '"0123456789"',
            "null",
            r"speed\.json: it must say when and by which commit .* found no commit; measure: make",
        ),
        ('"2026-12-01"', "null", r"speed\.json: .* found no date; measure: make figures NAME=speed"),
        (": 61.04", ': "fast"', r"speed\.json: values\.0\.value: Input should be a valid number"),
        ("speed.seconds.1e6", "speed.hours.1e6", r"must be a value of speed\.json"),
        ("seconds.$of:", "seconds.$size:", r"speed\.json: the cell .* needs 'size' in each of `rows`"),
        (":.1f}", ":.1fast}", r"speed\.json: the cell .* has no format"),
    ],
)
def test_a_damaged_file_fails_with_its_place(root: Path, was: str, now: str, message: str):
    file = root / figures.FOLDER / "speed.json"
    assert was in file.read_text()
    file.write_text(file.read_text().replace(was, now, 1))
    with pytest.raises(FigureError, match=message):
        Pages(root).rendered()


def test_a_number_may_stand_on_a_page_before_that_of_its_table(root: Path):
    first = root / "docs" / "first.md"
    first.write_text("It takes 99 s<!-- figure speed speed.seconds.1e6 -->.\n")
    assert Pages(root).write() == [first]
    assert "It takes 61 s<!--" in first.read_text()


def test_a_file_without_a_table_fails(root: Path):
    (root / figures.FOLDER / "fast.json").write_text((root / figures.FOLDER / "speed.json").read_text())
    with pytest.raises(FigureError, match=r"fast\.json: .* found no `<!-- figures fast -->`"):
        Pages(root).rendered()


def test_lines_that_lack_a_value_or_are_damaged_are_not_taken(root: Path):
    file = root / figures.FOLDER / "speed.json"
    with pytest.raises(FigureError, match=r"'speed\.seconds\.1e6' must be a value"):
        measure(file, PRINTED[1:], "0123456789", DAY)
    with pytest.raises(FigureError, match="line 2 of what was printed: "):
        measure(file, [PRINTED[0], PRINTED[2][:40]], "0123456789", DAY)


def test_what_is_measured_is_of_the_day_and_of_the_commit_that_ran(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(figures, "ROOT", root)
    file, page, value = (
        root / name for name in (f"{figures.FOLDER}/speed.json", "docs/speed.md", "benchmarks/value")
    )
    file.write_text(file.read_text().replace('"2026-12-01"', "null").replace('"0123456789"', "null"))
    first = committed(root)
    figures.main(["speed"])
    held = read(file)
    assert held.commit == first[:8]
    assert held.date == datetime.date.today()
    assert held.machine
    assert {"python", "numpy"} <= held.versions.keys()
    assert "| a million | 2.0 | 2.00 |" in page.read_text()
    assert f"at commit {first[:8]}, on {held.machine}.*" in page.read_text()
    value.write_text("3")
    with pytest.raises(FigureError, match=r"must be committed, found changes:\n M benchmarks/value\n"):
        figures.main(["speed"])
    second = committed(root)
    lines = root / "printed.jsonl"
    lines.write_text(PRINTED[0] + PRINTED[2])
    os.utime(lines, (0, 86_400 * 365))
    figures.main(["speed", "--from", str(lines), "--commit", first])
    assert (read(file).commit, read(file).date) == (first[:8], datetime.date(1971, 1, 1))
    figures.main(["speed"])
    assert (read(file).commit, read(file).values[1].value) == (second[:8], 3)
    for words, message in [
        (["sped"], r"NAME: must be one of speed, found 'sped'; name one of them"),
        (["speed", "--from", str(root / "none")], r"none: it must be a file"),
        (["speed", "--from", str(lines), "--commit", "nobody"], r"git rev-parse .*nobody.*; name a commit"),
    ]:
        with pytest.raises(FigureError, match=message):
            figures.main(words)
    capsys.readouterr()
    figures.main(["--area", "line"])
    assert capsys.readouterr().out == f"speed: {read(file).origin()}\n"
    figures.main(["--area", "graph"])
    assert capsys.readouterr().out == ""


def test_a_check_refuses_a_page_that_differs_from_its_file_and_writes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(figures, "ROOT", root)
    page = root / "docs" / "speed.md"
    figures.main(["--check"])
    page.write_text(PAGE.replace("61.0 |", "60.0 |"))
    with pytest.raises(FigureError, match=r"speed\.md: it must show what its files hold; run `make figures`"):
        figures.main(["--check"])
    assert "60.0 |" in page.read_text()


def test_pages_in_folders_are_seen(root: Path):
    page = root / "docs" / "serve" / "speed.md"
    page.parent.mkdir()
    (root / "docs" / "speed.md").rename(page)
    page.write_text(PAGE.replace("61.0 |", "60.0 |"))
    assert Pages(root).write() == [page]


@given(
    value=st.floats(1, 1e9),
    part=st.floats(-2, 2),
    tolerance=st.one_of(st.floats(1e-3, 1e3), st.integers(1, 300).map("{}%".format)),
    against=st.booleans(),
)
def test_what_is_beyond_its_tolerance_differs_and_nothing_else(
    value: float, part: float, tolerance: float | str, against: bool
):
    """`part` of the tolerance is how far the value moves."""
    allowed = value * float(tolerance[:-1]) / 100 if isinstance(tolerance, str) else tolerance
    assume(abs(abs(part) - 1) > 1e-6 and value + part * allowed != value)
    one = {"name": "speed.1", "unit": "s", "value": 1.0}
    moved = "against" if against else "value"
    form = Part(
        commands=["mgoe run"], tolerance={"speed.*": tolerance, "s": 0}, values=[Line(**one | {moved: value})]
    )
    found = form.differences([Line(**one | {moved: value + part * allowed})])
    assert [text.partition(":")[0] for text in found] == [f"speed.1{'.against' * against}"] * (abs(part) > 1)
    assert form.differences(form.values) == []


def test_what_is_not_printed_or_not_expected_differs():
    lines = [Line(name=name, unit="rows", value=3) for name in "abc"]
    form = Part(commands=["mgoe run"], runs=2, values=lines[:2])
    assert form.differences(lines[1:]) == [
        "a: expected 3 within 0 over 2 runs, found nothing",
        "c: expected nothing, found 3",
    ]


def test_expected_values_are_kept_and_compared(root: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(short, "ROOT", root)
    value, file = root / "benchmarks" / "value", root / short.EXPECTED
    form = {"commands": ["python benchmarks/speed.py"], "runs": 3, "tolerance": {"s": 1, "rows/s": 9}}
    file.write_text(
        json.dumps({"fast": form, "real": {"commands": ["python benchmarks/speed.py $SPEED_DATA"]}})
    )
    short.main([])
    assert "fast: not run, because it has no values yet" in capsys.readouterr().out
    short.main(["--keep"])
    kept = short.read(file)["fast"]
    assert (kept.values[0].value, kept.date) == (2, datetime.date.today())
    value.write_text("1.4")
    short.main([])
    assert "real: not run, because SPEED_DATA is not set" in capsys.readouterr().out
    value.write_text("1.6")
    with pytest.raises(FigureError, match=r"expected\.json: .* found 1 values that are not"):
        short.main(["fast"])
    assert "speed.seconds.1e6: expected 2 within 1.0 over 3 runs, found 3.2\n" in capsys.readouterr().out
    with pytest.raises(FigureError, match=r"slow: a part must be one of fast, real"):
        short.main(["slow"])
    file.write_text(file.read_text().replace('"runs": 3', '"runs": 0'))
    with pytest.raises(FigureError, match=r"expected\.json: fast\.runs: "):
        short.main([])


def test_expected_qualities_are_those_of_a_benchmark_that_is_there():
    for part in short.read(ROOT / short.EXPECTED).values():
        assert all((ROOT / shlex.split(command)[1]).is_file() for command in part.commands)
        assert part.differences(part.values) == []


@pytest.mark.costly
def test_measuring_runs_the_command_keeps_its_lines_and_names_one_that_failed(tmp_path: Path):
    kept = tmp_path / "kept"
    found = figures.run(["""python -c 'print("{}"); print("done")'"""], kept, ROOT)
    assert found == ["{}\n", "done\n"]
    assert kept.read_text() == "{}\ndone\n"
    with pytest.raises(FigureError, match=r"exit\(3\).*: it ended with code 3"):
        figures.run(["python -c 'raise SystemExit; exit(3)'", "python -c 'exit(3)'"], kept, ROOT)


@pytest.mark.parametrize("part", ["events", "exposures"])
@pytest.mark.parametrize("model", ["mgoe", "shared-bottom+mgoe"])
def test_a_model_that_is_slightly_worse_in_every_task_differs(part: str, model: str):
    expected = short.read(ROOT / short.EXPECTED)[part]
    worse = [
        one.model_copy(update={"value": one.value - 0.005})
        if one.unit == "share" and one.name.startswith(f"{part}.{model}.") and "lead" not in one.name
        else one
        for one in expected.values
    ]
    (found,) = expected.differences(worse)
    assert found.startswith(f"{part}.{model}.mean: ")
