"""The navigation of the site, in one place: what stands in the left column, in this order."""

from collections.abc import Sequence

HOME = "docs/index"
NAVIGATION = {
    "Start": ("docs/tutorial", "docs/concepts", "docs/choose", "docs/faq", "docs/troubleshooting"),
    "Python": (
        "docs/python",
        "examples/notebooks/1-first-model",
        "examples/notebooks/2-your-own-log",
        "examples/notebooks/3-an-exposure-log",
        "examples/notebooks/4-serve-and-send-events",
        "examples/notebooks/5-compare-fairly",
        "examples/notebooks/6-new-items-with-text",
        "examples/notebooks/7-test-the-test",
        "reference/python",
    ),
    "Data": ("docs/data", "docs/features", "docs/time", "docs/simulated", "docs/datasets"),
    "Train": (
        "docs/runs",
        "docs/notes",
        "docs/training",
        "docs/incumbent",
        "docs/plan",
        "docs/scale",
        "docs/batch",
    ),
    "Serve": (
        "docs/serving",
        "docs/experiments",
        "docs/loop",
        "docs/page",
        "docs/live",
        "docs/new-items",
        "docs/store",
        "reference/http",
    ),
    "Operate": (
        "docs/deployment",
        "docs/production",
        "docs/updating",
        "docs/registry",
        "docs/cycle",
        "docs/operations",
        "docs/speed",
        "docs/safety",
        "docs/backup",
        "docs/erasure",
    ),
    "Compare": ("docs/results", "docs/compare", "docs/lists", "docs/laboratory"),
    "Method": (
        "docs/method",
        "docs/graph",
        "docs/inputs",
        "docs/models",
        "docs/evaluation",
        "docs/calibration",
        "docs/retrieval",
    ),
    "Look up": (
        "docs/cli",
        "reference/commands",
        "docs/settings",
        "reference/settings",
        "docs/glossary",
        "reference/examples",
        "reference/gallery",
        "docs/architecture",
        "docs/extending",
        "docs/compatibility",
        "CHANGELOG",
        "CONTRIBUTING",
        "SECURITY",
    ),
}
"""Group to pages, by their path without suffix."""
OUTSIDE = {"docs/laboratory/": "docs/laboratory", "docs/maintaining": "CONTRIBUTING"}
"""How paths of pages outside of the navigation begin, and the page that links them."""
TITLES = {
    "docs/tutorial": "Tutorial",
    "docs/graph": "The macro graph",
    "docs/inputs": "What a model reads",
    "docs/models": "Models and baselines",
    "docs/evaluation": "Evaluation",
    "docs/retrieval": "Retrieval",
    "docs/settings": "Settings explained",
    "reference/settings": "Settings by type",
    "docs/python": "Python",
    "docs/cli": "Command line",
    "docs/laboratory": "Findings",
}
"""Titles in the navigation that differ from those of the pages."""


def toctrees() -> str:
    """Return the navigation as MyST, to be appended to the home page: the groups, which open on demand."""
    return _toctree([f"reference/{_file(group)}" for group in NAVIGATION], ":hidden:")


def group_pages() -> dict[str, str]:
    """Return the page of each group, by the name of its file in `reference/`: the pages of the group."""
    return {f"{_file(group)}.md": f"# {group}\n{_toctree(pages)}" for group, pages in NAVIGATION.items()}


def _file(group: str) -> str:
    return f"group-{group.lower().replace(' ', '-')}"


def _toctree(pages: Sequence[str], *options: str) -> str:
    entries = [f"{TITLES[page]} </{page}>" if page in TITLES else f"/{page}" for page in pages]
    return "\n".join(["", "```{toctree}", ":maxdepth: 1", *options, "", *entries, "```", ""])
