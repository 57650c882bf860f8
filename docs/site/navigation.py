"""The navigation of the site, in one place: what stands in the left column, in this order."""

HOME = "docs/index"
NAVIGATION = {
    "Start": (
        "docs/tutorial",
        "docs/concepts",
        "docs/choose",
    ),
    "Notebooks": (
        "examples/notebooks/1-first-model",
        "examples/notebooks/2-your-own-log",
        "examples/notebooks/3-an-exposure-log",
        "examples/notebooks/4-serve-and-send-events",
        "examples/notebooks/5-compare-fairly",
        "examples/notebooks/6-new-items-with-text",
    ),
    "Data": ("docs/data", "docs/features", "docs/time", "docs/simulated"),
    "Train": ("docs/runs", "docs/notes", "docs/training", "docs/incumbent"),
    "Large logs": ("docs/plan", "docs/scale", "docs/batch"),
    "Serve": ("docs/serving", "docs/page", "docs/live", "docs/new-items", "docs/store"),
    "Deploy": ("docs/deployment", "docs/backup", "docs/production"),
    "Daily loop": ("docs/updating", "docs/registry", "docs/cycle"),
    "Operate": ("docs/operations", "docs/speed", "docs/safety", "docs/erasure"),
    "Look up": (
        "docs/python",
        "reference/python",
        "reference/http",
        "docs/cli",
        "reference/commands",
        "docs/settings",
        "reference/settings",
        "docs/glossary",
        "reference/examples",
        "reference/gallery",
    ),
    "Compare": ("docs/results", "docs/compare", "docs/lists", "docs/datasets", "docs/laboratory"),
    "Method": (
        "docs/method",
        "docs/graph",
        "docs/inputs",
        "docs/models",
        "docs/evaluation",
        "docs/calibration",
        "docs/retrieval",
    ),
    "Understand and change": (
        "docs/architecture",
        "docs/extending",
        "docs/compatibility",
        "docs/troubleshooting",
        "docs/faq",
        "CHANGELOG",
        "CONTRIBUTING",
        "SECURITY",
    ),
}
"""Caption to pages, by their path without suffix."""
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
    """Return the navigation as MyST, to be appended to the home page."""
    lines = [""]
    for caption, pages in NAVIGATION.items():
        lines += ["```{toctree}", ":hidden:", f":caption: {caption}", ""]
        lines += [f"{TITLES[page]} </{page}>" if page in TITLES else f"/{page}" for page in pages]
        lines += ["```", ""]
    return "\n".join(lines)
