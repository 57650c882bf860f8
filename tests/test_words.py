"""The project is written in the field's words and in plain English: some words and phrases do not occur."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTEAD = {
    r"mend(s|ed|ing|able)?": "fix",
    r"rivals?": "baseline",
    r"newborns?": "cold start",
    r"(go|goes|going|gone|went) on (with|where|from|after)": "resume",
    r"(made|make|makes|making|begun|begin|write|writes|written|fitted) anew": "… again",
    r"(drawn|dealt|deals?|dealing) [\w ]{0,20}by lot": "at random",
    r"dealt": "distributed, assigned",
    r"whosever?": "whose",
    r"whereupon|wherefore|therein|thereof|whence": "plain words",
    r"nothing that can be told|cannot be told apart|tells? nobody|says? nothing of": "plain words",
    r"told (of|by|in|what|which|from)": "receives, gets, named",
    r"lies? (in|on|at|beside|below|there|where|anywhere|elsewhere)": "is in, is stored in",
    r"held against": "compared with",
    r"(one|an?) [\w-]+ an? (task|row|node|user|item|request|model|seed|line|stage|pair|epoch|log)": "per",
    r"(a|one) (row|line|file|number|value|label|tower|probability|column) an? \w+": "per",
    r"rooms|house": "packages, memory, space",
    r"for want of": "for lack of",
    r"none that|that which": "plain words",
}
"""Pattern to what to write instead."""
NOT_OURS = {
    "tests/test_words.py",
}
CHECKED = sorted(
    file
    for pattern in (
        "src/**/*.py",
        "src/**/*.html",
        "src/**/*.js",
        "src/**/*.j2",
        "src/**/*.yaml",
        "docs/**/*.md",
        "*.md",
    )
    for file in ROOT.glob(pattern)
    if file.relative_to(ROOT).as_posix() not in NOT_OURS
)
FOLDERS = sorted({file.parent for file in CHECKED})
PATTERNS = {re.compile(rf"\b({found})\b", re.IGNORECASE): instead for found, instead in INSTEAD.items()}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_words_that_the_project_does_not_use_are_absent(folder: Path):
    found = [
        f"{file.relative_to(ROOT)}:{number}: {match.group(0)!r}, write: {instead}"
        for file in CHECKED
        if file.parent == folder
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for pattern, instead in PATTERNS.items()
        for match in pattern.finditer(re.sub("`.*?`", "", line) if file.name == "CHANGELOG.md" else line)
    ]  # the changelog names what was removed
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "sentence",
    ["a setting to mend", "one tower a task", "goes on where it stopped", "groups dealt by lot"],
)
def test_the_patterns_find_what_they_are_for(sentence: str):
    assert any(pattern.search(sentence) for pattern in PATTERNS)
