"""Settings of Sphinx for the documentation site; `make docs` builds it.

The root of the source is the root of the project, so that links between pages are the same in the site as in
the repository. Warnings are errors: a link that leads nowhere fails the build.
"""

import re
import sys
from pathlib import Path

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent))

import offline
import reference
from navigation import HOME, OUTSIDE, toctrees

from mgoe import __version__

ROOT = Path(__file__).parents[2]
REPOSITORY = ""
"""Address of the repository, which every page links to its source; none while it is empty."""
LIKE = (
    r"~?(?:[\w.]*\.)?_?Buffer \| ~?[\w.]*_SupportsArray\[~?[\w.]*dtype\[~?[\w.]*Any\]\] \| "
    r"~?[\w.]*_NestedSequence\[~?[\w.]*_SupportsArray\[~?[\w.]*dtype\[~?[\w.]*Any\]\]\] \| "
    r"complex \| bytes \| str \| ~?[\w.]*_NestedSequence\[complex \| bytes \| str\]"
)
"""What `ArrayLike` of NumPy stands for."""
ARRAY = r"~?(?:numpy\.)?ndarray\[tuple\[~?[\w.]*Any, \.\.\.\], ~?(?:numpy\.)?dtype\[([^\[\]]+)\]\]"
"""What `NDArray` of NumPy stands for."""
SHOWN = {".html", ".css"}
DIAGRAM = re.compile(r"^```mermaid\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
FOLDER = re.compile(r"\]\(\.\./(examples[\w/-]*)\)")
"""A link to a folder, which the pages of a repository have and a site has not."""
kept: dict[str, list[str]] = {}
"""Texts of attributes while Napoleon works."""

project = "mgoe"
author = "the mgoe contributors"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = HOME
include_patterns = ["docs/**.md", "examples/notebooks/*.ipynb", "reference/**", "[A-Z]*.md"]
exclude_patterns = ["README.md", ".*", "build", "dist", "runs", "src", "tests", "benchmarks"]
default_role = "code"

myst_enable_extensions = ["tasklist"]
myst_heading_anchors = 6
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # the default is loaded from a network
suppress_warnings = ["misc.highlighting_failure"]  # answers that are cut with `...` are no whole JSON

napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = [("Attributes", "params_style")]  # a list, in which several may share a line
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"mgoe {__version__.partition('+')[0]}"
html_theme_options = (
    {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": ""} if REPOSITORY else {}
)
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False
html_additional_pages = {"index": "to_home.html"}
templates_path = ["."]


def complete(_: Sphinx, page: str, source: list[str]) -> None:
    """Append the navigation, mark pages outside of it, and let links to folders lead to a page."""
    if page == HOME:
        source[0] += toctrees()
    if page.startswith(tuple(OUTSIDE)):
        source[0] = f"---\norphan: true\n---\n{source[0]}"
    if page.startswith("docs/"):
        source[0] = DIAGRAM.sub(_arrows, FOLDER.sub(_files, source[0]))


def _arrows(diagram: re.Match[str]) -> str:
    """Return a diagram of Mermaid, which a browser would draw by a script from a network, as a table."""
    named = dict(re.findall(r"(\w+)\[([\w.]+)\]", diagram[1]))
    after: dict[str, list[str]] = {}
    for first, second in re.findall(r"(\w+) --> (\w+)", diagram[1]):
        after.setdefault(named.get(first, first), []).append(f"`{named.get(second, second)}`")
    return "\n".join(
        reference.table(("from", "to"), [(f"`{one}`", ", ".join(to)) for one, to in after.items()])
    )


def _files(link: re.Match[str]) -> str:
    folder = link[1].strip("/")
    if not (ROOT / folder).is_dir():
        return link[0]
    if folder == "examples/notebooks":
        return "](../examples/notebooks/1-first-model.ipynb)"
    return f"](../reference/examples.md#{folder.replace('/', '')})"


def skip_member(_: Sphinx, what: str, name: str, member: object, skip: bool, *__: object) -> bool | None:
    """Leave out fields of tuples, which stand above them, and the methods that scikit-learn adds."""
    return True if type(member).__name__ == "_tuplegetter" or re.fullmatch(r"set_\w+_request", name) else None


def shorten_signature(
    _: Sphinx, __: str, ___: str, value: object, ____: object, signature: str, answer: str
) -> tuple[str | None, str | None]:
    """Name the types of arrays as the code does, and leave keys of settings to their page."""
    if isinstance(value, type) and issubclass(value, BaseModel):
        return "(**keys)", None
    return _short(signature), _short(answer)


def _short(text: object) -> str | None:
    return re.sub(ARRAY, r"NDArray[\1]", re.sub(LIKE, "ArrayLike", text)) if isinstance(text, str) else None


def read_docstring(_: Sphinx, what: str, name: str, __: object, ___: object, lines: list[str]) -> None:
    """Prepare a docstring for Napoleon: fenced blocks become those of reStructuredText.

    The text of an attribute is kept from Napoleon, which takes what stands before a colon for a type.
    """
    fenced, text = False, list(lines)
    lines.clear()
    for line in text:
        if line.strip().startswith("```"):
            fenced = not fenced
            lines += [".. code-block:: text", ""] if fenced else [""]
        else:
            lines.append(f"   {line}" if fenced else line)
    if what in ("attribute", "property"):
        kept[name], lines[:] = list(lines), []


def restore_text(_: Sphinx, __: str, name: str, ___: object, ____: object, lines: list[str]) -> None:
    """Put back what `read_docstring` kept."""
    lines[:] = [_short(line) or "" for line in [*lines, *kept.pop(name, [])]]


def check_offline(app: Sphinx, failed: Exception | None) -> None:
    """Warn of every page and style sheet that a browser completes from a network."""
    for file in (
        [] if failed else sorted(path for path in Path(app.outdir).rglob("*") if path.suffix in SHOWN)
    ):
        for address in offline.loaded(file.read_text(encoding="utf-8")):
            logging.getLogger(__name__).warning("%s is completed from a network: %s", file.name, address)


def setup(app: Sphinx) -> None:
    """Connect what this project adds."""
    app.connect("builder-inited", lambda _: reference.write(ROOT / "reference"))
    app.connect("source-read", complete)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # before Napoleon
    app.connect("autodoc-process-docstring", restore_text, priority=600)  # after it
    app.connect("build-finished", check_offline)
