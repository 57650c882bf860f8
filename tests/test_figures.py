"""Measured tables and numbers of the pages are those of their files, and it is known which code measured."""

import json
import re
from pathlib import Path

import pytest
from benchmarks.figures import Figures, Pages, measure, read, stamp, write
from benchmarks.short import Line, Short
from benchmarks.sources import FigureError, Sources
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

<!-- end -->

That is 1.62 M<!-- figure speed speed.rows.1e6 --> rows per second.
"""
MODULES = {
    "src/mgoe/__init__.py": '__version__ = "1"\ndef __getattr__(name):\n    from mgoe.heavy import Heavy\n',
    "src/mgoe/heavy.py": "Heavy = 1\n",
    "src/mgoe/parts/__init__.py": "from mgoe.parts.one import one\nfrom mgoe.parts.two import two\n",
    "src/mgoe/parts/one.py": "def one():\n    import numpy\n    from mgoe import __version__\n    return 1\n",
    "src/mgoe/parts/two.py": "two = 2\n",
    "src/mgoe/typed.py": "T = int\n",
    "src/mgoe/coded.py": "code = 1\n",
    "src/mgoe/cli/runs.py": "def run():\n    from mgoe.parts import two\n",
    "benchmarks/speed.py": """from typing import TYPE_CHECKING
from benchmarks.child import child
from mgoe.parts import one
if TYPE_CHECKING:
    from mgoe.typed import T
SECONDS = 1
child("-c", "import mgoe.coded; print(1)")
import mgoe.coded
print('{"name": "speed.seconds.1e5", "unit": "s", "value": %s}' % (10 * mgoe.coded.code))
""",
    "benchmarks/child.py": 'def child(*words):\n    print(["-m", "mgoe", "--quiet", "run"])\n',
    "benchmarks/other.py": "import importlib\nimport mgoe.heavy\nimportlib.import_module('mgoe.typed')\n",
}
COMMAND = "python benchmarks/speed.py --events 1e6"


def checkout(folder: Path) -> Path:
    """A checkout with a page, its figures, and a benchmark that needs a part of the modules."""
    for name, text in MODULES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "docs").mkdir()
    (folder / "docs" / "speed.md").write_text(PAGE)
    held = Figures(
        commands=["python benchmarks/speed.py"],
        columns={
            "size": "$label",
            "seconds": "{speed.seconds.$of:.1f}",
            "ratio": "{speed.seconds.$of.ratio:.2f}",
        },
        rows=[{"label": "a million", "of": "1e6"}],
        code=Sources(folder).code(["python benchmarks/speed.py"]),
        values=[Line.model_validate_json(line) for line in PRINTED if line.startswith("{")],
    )
    write(folder / figures.FOLDER / "speed.json", held)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return checkout(tmp_path)


@pytest.fixture(scope="module")
def sources() -> Sources:
    """The code of this checkout, which takes seconds to read."""
    return Sources(ROOT)


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that examples change in turn."""
    return checkout(tmp_path_factory.mktemp("changing"))


def test_pages_show_what_their_files_hold():
    other = [page.name for page in Pages(ROOT).changed()]
    assert not other, f"{other}: written by hand since `make figures` wrote them; give it again"


def test_a_release_is_refused_for_exactly_the_figures_of_other_code(sources: Sources):
    """The list is the reason of an expected failure, so that every run of the tests shows it."""
    pages = Pages(ROOT)
    kept = [page.read_text() for page in pages.pages if "laboratory" not in str(page.relative_to(ROOT))]
    shown = set(re.findall(r"<!-- figures? ([\w-]+) ", "".join(kept)))
    files = sorted((ROOT / figures.FOLDER).glob("*.json"))
    held = {file.stem: read(file) for file in files if file.stem in shown}
    others = [name for name, one in held.items() if figures.is_of_other_code(one, sources)]
    assert pages.of_other_code(sources) == others
    if not others:
        figures.check_release(pages, sources)
        return
    with pytest.raises(FigureError, match=f"those of other code are {', '.join(others)};"):
        figures.check_release(pages, sources)
    pytest.xfail(f"of other code, so no release can be made: {', '.join(others)}")


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
        ("figure speed speed.rows", "figure fast rows", r"speed\.md:13: .* no docs/figures/fast\.json"),
        (
            "speed.rows.1e6",
            "speed.rows.1e7",
            r"speed\.md:13: 'speed\.rows\.1e7' must be a value of speed\.json",
        ),
        ("<!-- end -->", "", r"speed\.md:5: markers must be"),
        ("<!-- figures speed -->", "", r"speed\.md:11: markers must be"),
        ("<!-- figures speed -->", "<!--figures speed-->", r"speed\.md:5: markers must be"),
        ("1.62 M<!--", "many <!--", r"speed\.md:13: markers must be"),
        ("| 61.0", "| 61.0<!-- figure speed speed.seconds.1e6 -->", r"speed\.md:9: markers must be"),
        ("That is", "<!-- figures speed -->\n<!-- end -->\n", r"speed\.md:13: .* on a page already"),
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
    file, sources = root / figures.FOLDER / "speed.json", Sources(root)
    with pytest.raises(FigureError, match=r"'speed\.seconds\.1e6' must be a value"):
        measure(file, PRINTED[1:], sources, "0")
    with pytest.raises(FigureError, match="line 2 of what was printed: "):
        measure(file, [PRINTED[0], PRINTED[2][:40]], sources, "0")


def test_a_command_needs_the_modules_that_it_reaches(root: Path):
    sources = Sources(root)
    own = {"benchmarks.speed", "benchmarks.child", "mgoe", "mgoe.parts.one", "mgoe.coded"}
    assert sources.needed(COMMAND) == own | {"mgoe.cli.runs", "mgoe.parts.two"}
    assert sources.needed("python -m benchmarks.other") == {"benchmarks.other", "mgoe.heavy", "mgoe.typed"}
    assert sources.needed("mgoe run mine.yaml") == {"mgoe.cli.runs", "mgoe.parts.two"}
    assert "numpy" in sources.packages([COMMAND])
    with pytest.raises(FigureError, match=r"fast\.py: it must begin with"):
        sources.needed("python benchmarks/fast.py")


@pytest.mark.parametrize(
    ("file", "was", "now", "other"),
    [
        ("benchmarks/speed.py", "SECONDS = 1", "SECONDS = 1  # per row\n'''Of a row.'''", False),
        ("src/mgoe/parts/one.py", "def one():", 'def one():\n    """Return one."""', False),
        ("src/mgoe/heavy.py", "1", "2", False),
        ("src/mgoe/typed.py", "int", "float", False),
        ("benchmarks/speed.py", "SECONDS = 1", "SECONDS = 2", True),
        ("src/mgoe/parts/one.py", "return 1", "return None", True),
        ("src/mgoe/parts/two.py", "2", "'2'", True),
        ("src/mgoe/coded.py", "code", "coded", True),
    ],
)
def test_the_hash_changes_with_the_code_that_runs_alone(
    root: Path, file: str, was: str, now: str, other: bool
):
    before = Sources(root).code([COMMAND])
    changed = root / file
    assert was in changed.read_text()
    changed.write_text(changed.read_text().replace(was, now))
    assert (Sources(root).code([COMMAND]) != before) == other


def test_a_release_needs_figures_of_its_code(root: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(figures, "ROOT", root)
    figures.main(["--checkout", str(root), "--release"])
    assert capsys.readouterr().out == "of other code: none\n"
    (root / "src/mgoe/coded.py").write_text("code = 2\n")
    with pytest.raises(FigureError, match=r"those of other code are speed; measure"):
        figures.main(["--release"])
    with pytest.raises(FigureError, match=r"NAME: must be one of speed, found 'sped'; name one of them"):
        figures.main(["sped"])
    with pytest.raises(FigureError, match=r"printed\.jsonl: it must be a file"):
        figures.main(["speed", "--from", str(root / "printed.jsonl")])
    (root / "printed.jsonl").write_text(PRINTED[0].replace("61.04", "59.96") + PRINTED[2])
    figures.main(["speed", "--from", str(root / "printed.jsonl"), "--checkout", str(root)])
    figures.main(["--release"])
    (root / "docs" / "speed.md").write_text(PAGE)
    with pytest.raises(FigureError, match=r"speed\.md: it must show"):
        figures.main(["--release"])
    figures.main([])
    assert "| a million | 60.0 | 2.00 |" in (root / "docs" / "speed.md").read_text()
    held = json.loads((root / figures.FOLDER / "speed.json").read_text())
    assert "numpy" in held["versions"]
    assert held["machine"]


@pytest.mark.parametrize(
    ("place", "others"), [("laboratory.md", []), ("laboratory/speed.md", []), ("serve/speed.md", ["speed"])]
)
def test_pages_in_folders_are_seen_and_those_that_carry_dates_not_measured_again(
    root: Path, place: str, others: list[str]
):
    page = root / "docs" / place
    page.parent.mkdir(exist_ok=True)
    (root / "docs" / "speed.md").rename(page)
    (root / "src/mgoe/coded.py").write_text("code = 2\n")
    assert Pages(root).of_other_code(Sources(root)) == others
    page.write_text(PAGE.replace("61.0 |", "60.0 |"))
    assert Pages(root).write() == [page]


SHORT = Short(commands=["python -m benchmarks.speed --rounds $runs"], tolerance={"s": "10%"})


def test_a_short_form_within_its_tolerance_stamps_other_code(root: Path):
    file, coded = root / figures.FOLDER / "speed.json", root / "src" / "mgoe" / "coded.py"
    write(file, read(file).model_copy(update={"short": SHORT}))
    write(file, stamp(file, Sources(root)))
    measured = read(file)
    kept = Line(name="speed.seconds.1e5", value=10, unit="s")
    assert measured.short is not None
    assert (measured.short.values, measured.short.code) == ([kept], measured.code)
    coded.write_text("code = 1.2\n")
    with pytest.raises(
        FigureError, match=r"1e5: expected 10 within 10% over 1 run, found 12; measure again: make"
    ):
        stamp(file, Sources(root))
    coded.write_text("code = 1.05\n")
    assert Pages(root).of_other_code(Sources(root)) == ["speed"]
    write(file, stamp(file, Sources(root)))
    assert Pages(root).of_other_code(Sources(root)) == []
    checked = read(file)
    assert checked.short is not None
    assert (checked.code, checked.short.values) == (measured.code, [kept])
    assert checked.short.code == Sources(root).code(SHORT.commands)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (None, r"speed\.json: a stamp needs `short`"),
        (
            Short(commands=["python -m benchmarks.other"]),
            r"speed\.json: a stamp needs `short`, .* the same code",
        ),
        (SHORT, r"speed\.json: a stamp needs what the short form printed under the code that measured"),
    ],
)
def test_a_stamp_without_what_it_needs_is_refused(root: Path, form: Short | None, message: str):
    file = root / figures.FOLDER / "speed.json"
    write(file, read(file).model_copy(update={"short": form}))
    (root / "src/mgoe/coded.py").write_text("code = 2\n")
    with pytest.raises(FigureError, match=message):
        stamp(file, Sources(root))


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
    form = Short(
        commands=["mgoe run"], tolerance={"speed.*": tolerance, "s": 0}, values=[Line(**one | {moved: value})]
    )
    found = form.differences([Line(**one | {moved: value + part * allowed})])
    assert [text.partition(":")[0] for text in found] == [f"speed.1{'.against' * against}"] * (abs(part) > 1)
    assert form.differences(form.values) == []


def test_what_is_not_printed_or_not_expected_differs():
    lines = [Line(name=name, unit="rows", value=3) for name in "abc"]
    form = Short(commands=["mgoe run"], runs=2, values=lines[:2])
    assert form.differences(lines[1:]) == [
        "a: expected 3 within 0 over 2 runs, found nothing",
        "c: expected nothing, found 3",
    ]


def test_expected_values_are_kept_and_compared(root: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(short, "ROOT", root)
    coded, file = root / "src" / "mgoe" / "coded.py", root / short.EXPECTED
    form = {"commands": ["python -m benchmarks.speed"], "runs": 3, "tolerance": {"s": 1}}
    file.write_text(
        json.dumps({"fast": form, "real": {"commands": ["python -m benchmarks.speed $SPEED_DATA"]}})
    )
    short.main([])
    assert "fast: not run, because it has no values yet" in capsys.readouterr().out
    short.main(["--keep"])
    kept = short.read(file)["fast"]
    assert (kept.values[0].value, kept.code) == (10, Sources(root).code(kept.commands))
    coded.write_text("code = 1.05\n")
    short.main([])
    assert "real: not run, because SPEED_DATA is not set" in capsys.readouterr().out
    coded.write_text("code = 1.2\n")
    with pytest.raises(FigureError, match=r"expected\.json: .* found 1 values that are not"):
        short.main(["fast"])
    assert "speed.seconds.1e5: expected 10 within 1.0 over 3 runs, found 12\n" in capsys.readouterr().out
    with pytest.raises(FigureError, match=r"slow: a part must be one of fast, real"):
        short.main(["slow"])
    file.write_text(file.read_text().replace('"runs": 3', '"runs": 0'))
    with pytest.raises(FigureError, match=r"expected\.json: fast\.runs: "):
        short.main([])


def test_expected_qualities_are_those_of_a_benchmark_that_is_there(sources: Sources):
    for part in short.read(ROOT / short.EXPECTED).values():
        assert sources.code(part.commands)
        assert part.differences(part.values) == []


@pytest.mark.costly
def test_measuring_runs_the_command_keeps_its_lines_and_names_one_that_failed(tmp_path: Path):
    kept = tmp_path / "kept"
    found = figures.run(["""python -c 'print("{}"); print("done")'"""], kept, ROOT)
    assert found == ["{}\n", "done\n"]
    assert kept.read_text() == "{}\ndone\n"
    with pytest.raises(FigureError, match=r"exit\(3\).*: it ended with code 3"):
        figures.run(["python -c 'raise SystemExit; exit(3)'", "python -c 'exit(3)'"], kept, ROOT)
