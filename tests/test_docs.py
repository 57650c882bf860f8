"""What the documentation says is so: settings, links and commands. Prose is for people to check."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mgoe import config
from mgoe._util.extras import install
from mgoe.cli import app
from mgoe.datasets import DATA_SETS
from mgoe.lifecycle import Bounds, CycleSettings
from mgoe.models import BASES, PRESETS, resolve
from mgoe.simulation import BehaviorSettings, StaySettings, VisitSettings, WorldSettings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
YAML = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    )
]
SETTINGS = {
    "Top level": config.RunSettings,
    "`data`": config.DataSettings,
    "`data.users`, `data.items`": config.SideTableSettings,
    "A feature": config.FeatureSettings,
    "A task": config.TaskSettings,
    "`split`": config.SplitSettings,
    "`negatives`": config.NegativeSettings,
    "`graph`": config.GraphSettings,
    "`spark`": config.SparkSettings,
    "A model": config.ModelSettings,
    "`training`": config.TrainingSettings,
    "`evaluation`": config.EvaluationSettings,
    "`retrieval`": config.RetrievalSettings,
    "A cycle": CycleSettings,
    "`bounds`": Bounds,
    "A world": WorldSettings,
    "A behaviour": BehaviorSettings,
    "`stay`": StaySettings,
    "Visits": VisitSettings,
}
PAGE_OF = {"Visits": "loop.md"}
"""Pages of settings that are not those of a run."""
IN_REFERENCE = {"A world", "A behaviour", "`stay`"}
"""Settings that the reference of the site alone lists."""


def table(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    below = (ROOT / "docs" / page).read_text().split(f"# {heading}\n", 1)[1].split("\n### ", 1)[0]
    lines = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)[0].splitlines()
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines[2:]
    ]


def written(field: Any) -> str:
    """A default as the tables write it."""
    if field.default is PydanticUndefined:
        return "required"
    several = isinstance(field.default, list) and field.default and isinstance(field.default[0], BaseModel)
    if several or isinstance(field.default, BaseModel):
        return "see below"
    return "none" if field.default is None else flow(field.default)


def flow(value: Any) -> str:
    """A value as YAML on one line, in code quotes."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"`{text}`".replace("'", '"')


@pytest.mark.parametrize("heading", [heading for heading in SETTINGS if heading not in IN_REFERENCE])
def test_every_setting_is_listed_with_its_default(heading):
    listed = {
        key.strip("`"): default for key, default, _ in table(PAGE_OF.get(heading, "settings.md"), heading)
    }
    assert listed == {name: written(field) for name, field in SETTINGS[heading].model_fields.items()}


def test_every_setting_of_a_comparison_is_listed():
    below = (
        (ROOT / "docs" / "compare.md")
        .read_text()
        .split("\n## Settings of a comparison\n", 1)[1]
        .split("\n## ", 1)[0]
    )
    listed = {
        name
        for row in re.findall(r"^\| (`[^|]*) \|", below, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert listed == set(config.ComparisonSettings.model_fields)


def test_every_switch_of_mgoe_is_listed_with_its_default():
    listed = {key.strip("`"): default for key, default, _, _ in table("settings.md", "`mgoe`")}
    assert listed == {name: written(field) for name, field in BASES["mgoe"].Options.model_fields.items()}


def test_the_paper_s_preset_is_listed_as_it_is():
    listed = {
        key.strip("`"): cell for key, default, cell, _ in table("settings.md", "`mgoe`") if cell != default
    }
    assert listed == {name: flow(value) for name, value in PRESETS["mgoe-paper"].options.items()}


def test_every_row_is_listed_with_its_inputs():
    listed = {
        name: set(re.findall(r"`([a-z]+)`", inputs))
        for names, inputs in table("models.md", "Rows")
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert listed == {name: set(resolve(name).inputs or ()) for name in listed}
    assert {name.partition("+")[0] for name in listed} == set(PRESETS)


def test_every_data_set_is_listed_as_it_is():
    text = (
        (ROOT / "docs" / "datasets.md").read_text().split("\n## What there is\n", 1)[1].split("\n## ", 1)[0]
    )
    listed = [
        [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    known = DATA_SETS.values()
    assert listed == [[d.name, d.form, ", ".join(d.tasks), d.size, d.license] for d in known]


@pytest.mark.parametrize("block", YAML)
def test_configurations_are_valid(block):
    raw = yaml.safe_load(block)
    if isinstance(raw, dict) and "logs" in raw:
        comparison = config.check_settings(config.ComparisonSettings, raw)
        assert all(resolve(model).inputs for model in comparison.models)
    if isinstance(raw, dict) and "data" in raw:
        models = config.make_settings(raw).models
        own = [model for model in models if not isinstance(model, str) and ":" in model.base]
        assert all(resolve(model).inputs for model in models if model not in own)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) + re.findall(
        r'src="([^"]+)"', page.read_text()
    ):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.name)
def test_a_page_begins_with_what_it_is_for(page):
    title, first = page.read_text().split("\n\n", 2)[:2]
    assert title.startswith("# ")
    assert re.fullmatch(r"[A-Z`].+[.:]", first), first
    assert "after this page" not in first.lower()


def test_the_readme_is_short_and_links_what_a_newcomer_needs():
    """The navigation of the site leads to the other pages, as `tests/test_site.py` checks.

    Code, tables and links count as words, as `wc -w` counts them.
    """
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert len(text.split()) <= 700
    linked = set(re.findall(r"\]\(([^)#\s]+)", text))
    docs = "index tutorial choose python serving results method glossary troubleshooting faq compatibility"
    others = {"CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"}
    assert {f"docs/{name}.md" for name in docs.split()} | others <= linked


LOOKED_UP = {
    "docs/cli.md": "a section per command",
    "docs/settings.md": "a row per setting",
    "docs/troubleshooting.md": "a row per message",
}
"""Pages of any length, and what is looked up in them instead of reading them through."""


def test_only_pages_to_look_things_up_in_have_more_than_2500_words():
    """Counted as `wc -w` does."""
    long = {page.relative_to(ROOT).as_posix() for page in PAGES if len(page.read_text().split()) > 2500}
    assert long <= LOOKED_UP.keys()


def test_the_changelog_sums_up_what_is_not_released_and_has_a_line_per_change_after():
    text = (ROOT / "CHANGELOG.md").read_text()
    newest = text.split("\n## ")[1]
    assert "(not released yet)" not in newest or len(newest.split()) <= 600
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= {"Added", "Changed", "Fixed", "Removed"}
    assert [line for line in text.splitlines() if line.startswith("- ") and len(line) > 400] == []


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_glossary_has_every_term_that_a_page_introduces(page: str):
    """A term is in italics where it is introduced."""
    glossary = (ROOT / "docs" / "glossary.md").read_text().lower()
    terms = re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", (ROOT / page).read_text())
    assert terms
    assert [term for term in terms if term.lower().removesuffix("s") not in glossary] == []


def test_messages_of_troubleshooting_are_those_of_the_code():
    said = "\n".join(
        "\0".join(part.value for part in node.values if isinstance(part, ast.Constant))
        if isinstance(node, ast.JoinedStr)
        else str(node.value)
        for file in ROOT.glob("src/**/*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.JoinedStr | ast.Constant)
    )
    pages = "\n".join((ROOT / "docs" / page).read_text() for page in ("troubleshooting.md", "notes.md"))
    messages = re.findall(r"^\| `(?:[\w.-]+: )?([^`]+)`", pages, re.MULTILINE)
    assert len(messages) > 30
    for message in messages:
        for piece in message.split("..."):
            assert piece.strip(" '():;") in said, message


def test_extras_are_installed_as_messages_of_the_code_say():
    """Copies that a server installs from a checkout are named by the path of their `pip`."""
    kinds = ("src/**/*.py", "tests/**/*.py", "benchmarks/*.py", "examples/**/*.*", "*.md", "docs/**/*.md")
    command = r"(?<![/\w])pip install (?:-e )?\\?'[^'\n]*\[([\w,]+)\]'"
    found = {
        (file.relative_to(ROOT).as_posix(), *one)
        for kind in kinds
        for file in ROOT.glob(kind)
        for one in re.findall(f"({command})", file.read_text(errors="replace"))
    }
    assert {extra for page, _, extra in found if page.startswith("docs/")} >= {"serve", "topn", "tune,gbm"}
    assert [one for one in sorted(found) if one[1] != install(one[2])] == []


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/tutorial.md"])
def test_a_newcomer_is_told_to_clone_before_the_installation(page: str):
    block = re.search(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)[1]
    clone, installs = (block.find(words) for words in ("git clone ADDRESS mgoe && cd mgoe", install("serve")))
    assert 0 <= clone < installs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    command = typer.main.get_command(app)
    for line in re.findall(
        r"^ *(?:\$ )?mgoe ((?:--)?[a-z][^\n]*)", page.read_text(), re.MULTILINE
    ) + re.findall(r"`mgoe ([^`]+)`", page.read_text()):
        words = line.split()
        here: Any = command
        while words and hasattr(here, "commands") and not words[0].startswith("-"):
            assert words[0] in here.commands, f"mgoe {line}"
            here = here.commands[words.pop(0)]
        everywhere = {"--help", "-h", "--quiet"}
        options = {name for parameter in here.params for name in parameter.opts} | everywhere
        assert {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z].*", word)} <= options, (
            f"mgoe {line}"
        )


def anchors(page: Path) -> set[str]:
    """What the headings of a page can be linked by."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
