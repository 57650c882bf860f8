"""The documentation site has every page, public name, setting, command and route. `make docs` builds it."""

import re
import shutil
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from urllib.parse import urlencode

import pytest
import typer

import mgoe
from mgoe.cli import app
from mgoe.models import BASES
from tests.test_docs import SETTINGS

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "site"))
navigation = import_module("navigation")
offline = import_module("offline")
reference = import_module("reference")
page_of = cache(reference.python_page)
QUERIES = {
    "cold start": "docs/new-items",
    "hyperparameter": "docs/training",
    "A/B test": "docs/experiments",
    "click-through rate": "docs/calibration",
    "conversion rate": "docs/calibration",
    "impressions": "docs/data",
    "data leakage": "docs/time",
    "baseline": "docs/glossary",
    "two-tower": "docs/retrieval",
    "multi-task learning": "docs/models",
}
"""What an analyst searches for, and the page that should be among the first three."""

NAVIGABLE = [page for pages in navigation.NAVIGATION.values() for page in pages]
EXPORTING = sorted(
    ".".join(("mgoe", *file.parent.relative_to(Path(mgoe.__file__).parent).parts))
    for file in Path(mgoe.__file__).parent.rglob("__init__.py")
    if "__all__" in file.read_text(encoding="utf-8")
)


def test_every_page_is_in_the_navigation_once(tmp_path: Path):
    reference.write(tmp_path)
    files = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/notebooks/*.ipynb")]
    pages = {file.relative_to(ROOT).with_suffix("").as_posix() for file in files} - {
        "README",
        navigation.HOME,
    }
    groups = {f"reference/{Path(name).stem}" for name in navigation.group_pages()}
    generated = {f"reference/{page.stem}" for page in tmp_path.glob("*.md")} - groups
    assert len(groups) == len(navigation.NAVIGATION) <= 9
    outside = {page for page in pages if page.startswith(tuple(navigation.OUTSIDE))}
    assert sorted(NAVIGABLE) == sorted(pages - outside | generated)


@pytest.mark.parametrize(("start", "linking"), navigation.OUTSIDE.items())
def test_pages_outside_of_the_navigation_are_linked_from_one_that_is_in_it(start: str, linking: str):
    page = ROOT / f"{linking}.md"
    links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
    linked = {(page.parent / link).resolve() for link in links}
    outside = {file for file in ROOT.glob("docs/**/*.md") if str(file.relative_to(ROOT)).startswith(start)}
    assert linking in NAVIGABLE
    assert outside
    assert outside <= linked


def test_every_package_with_public_names_has_a_page():
    assert set(EXPORTING) <= set(reference.PACKAGES)


@pytest.mark.parametrize("package", reference.PACKAGES)
def test_every_public_name_is_described_once_or_linked(package: str):
    page = page_of(package)
    for name in reference.exported(import_module(package)):
        described = page.count(f":: {package}.{name}\n")
        assert described + page.count(f"**{name}**: see :") == 1, name


@pytest.mark.parametrize("package", reference.PACKAGES)
def test_a_link_of_a_public_name_leads_to_its_description(package: str):
    for name, _, home in reference.public_names(package):
        assert f":: {home}.{name}\n" in page_of(home)


def test_every_setting_is_in_the_reference():
    page = reference.settings_page()
    for settings in SETTINGS.values():
        rows = page.split(f"\n### {settings.__name__}\n")[1].split("\n### ")[0]
        assert [name for name in settings.model_fields if f"\n| `{name}` | " not in rows] == []
        assert [name for name, field in settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("base", BASES)
def test_every_switch_of_a_model_is_in_the_reference(base: str):
    parts = reference.settings_page().split("\n## Options of models\n")[1].split("\n### ")[1:]
    rows = "".join(part for part in parts if f"`{base}`" in part.splitlines()[0])
    fields = BASES[base].Options.model_fields
    assert [name for name in fields if f"\n| `{name}` | " not in rows] == []
    assert [name for name, field in fields.items() if not field.description] == []


def test_every_command_and_every_route_is_in_the_reference():
    commands, http = reference.commands_page(), reference.http_page()
    assert set(typer.main.get_command(app).commands) == {
        line.removeprefix("## `mgoe ").rstrip("`")
        for line in commands.splitlines()
        if line.startswith("## `mgoe ")
    }
    assert "[bold]" not in commands
    assert all(
        f"{method.upper()} {path}\n" in http
        for path, of in reference.openapi()["paths"].items()
        for method in of
    )


def test_every_picture_is_on_a_page_and_in_the_gallery_with_what_it_shows():
    found = dict(re.findall(r"!\[([^\]]+)\]\(../docs/images/([\w.-]+)\)", reference.gallery_page()))
    assert sorted(found.values()) == sorted(file.name for file in (ROOT / "docs" / "images").iterdir())


@pytest.mark.parametrize(
    ("html", "loaded"),
    [
        ('<script defer src="https://cdn.example/a.js"></script>', ["https://cdn.example/a.js"]),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', ["//fonts.example/a.css"]),
        ("<style>@import url('https://a.example/b.css')</style>", ["https://a.example/b.css"]),
        ('<a href="https://example.org">a link</a> <img src="../a.png">', []),
    ],
)
def test_what_a_browser_would_load_from_a_network_is_found(html: str, loaded: list[str]):
    assert offline.loaded(html) == loaded


@pytest.mark.costly
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_the_site_builds_without_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """As `make docs` does, in this process, which has imported the library already. Nothing is executed.

    A link that leads nowhere is a warning, and so is a page that is neither in the navigation nor in
    `OUTSIDE`, a docstring that is no markup, and a page that a browser completes from a network.
    """
    build = pytest.importorskip("sphinx.cmd.build", reason="the extra `docs` is not installed")
    words = [
        "-q",
        "-E",
        "-W",
        "--keep-going",
        "-c",
        "docs/site",
        "-d",
        tmp_path / "trees",
        ".",
        tmp_path / "site",
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        ended = build.build_main([*map(str, words)])
    assert ended == 0, capsys.readouterr().err
    searched = (tmp_path / "site" / "searchindex.js").read_text(encoding="utf-8")
    assert all(f'"{page}"' in searched for page in NAVIGABLE)
    missed = [
        f"{query!r} finds {pages}, and {wanted} is none of the first three"
        for query, wanted in QUERIES.items()
        if wanted not in (pages := found_by(query, tmp_path / "site")[:3])
    ]
    assert not missed, "\n".join(missed)


def found_by(query: str, site: Path) -> list[str]:
    """Return the pages that the search of a built site finds, the best first, in a browser."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("the search runs in Chromium, which is not installed")
    address = f"{(site / 'search.html').as_uri()}?{urlencode({'q': query})}"
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    shown = subprocess.run([*words, "--dump-dom", address], capture_output=True, text=True, check=True).stdout
    results = shown.partition('id="search-results"')[2]
    return [*dict.fromkeys(re.findall(r'<li[^>]*><a href="([\w./-]+)\.html', results))]
