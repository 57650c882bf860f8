"""The navigation of the site, in one place: what stands in the left column, in this order."""

HOME = "docs/index"
NAVIGATION = {
    "Start": (
        "docs/tutorial",
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
    "Use": ("docs/data", "docs/glossary", "docs/method", "docs/scale", "docs/engines"),
    "Serve": ("docs/serving", "docs/page", "docs/live", "docs/new-items", "docs/store"),
    "Deploy": ("docs/deployment", "docs/backup", "docs/production"),
    "Renew": ("docs/updating", "docs/registry", "docs/cycle"),
    "Operate": ("docs/operations", "docs/speed", "docs/safety", "docs/erasure"),
    "Look up": (
        "docs/python",
        "reference/python",
        "reference/http",
        "docs/cli",
        "reference/commands",
        "reference/settings",
        "reference/examples",
        "reference/gallery",
    ),
    "Compare": ("docs/benchmarks", "docs/datasets"),
    "Understand and change": (
        "docs/architecture",
        "docs/extending",
        "docs/compatibility",
        "docs/troubleshooting",
        "docs/faq",
        "docs/laboratory",
        "CHANGELOG",
        "CONTRIBUTING",
        "SECURITY",
    ),
}
"""Caption to pages, by their path without suffix."""
TITLES = {
    "docs/tutorial": "Tutorial",
    "docs/data": "Data and settings",
    "docs/scale": "Large logs",
    "docs/python": "Python",
    "docs/cli": "Command line",
    "docs/benchmarks": "Comparisons and results",
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
