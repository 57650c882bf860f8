"""The page at `/`: its style sheet and scripts are put into one file, which loads nothing from elsewhere."""

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources

SCRIPTS = ("numbers.js", "parts.js", "ranking.js", "explanation.js", "macro.js", "start.js")
"""In the order in which they run."""


@dataclass(frozen=True)
class Page:
    """The page and what a browser may do with it.

    Attributes:
        html: The whole page.
        policy: Its content security policy: it runs its own script and style, reads its own server and
            nothing else, and is shown in no other page.
    """

    html: str
    policy: str


def read_page() -> Page:
    """Return the page."""
    folder = resources.files("mgoe.serving.http.page")
    html, style, *scripts = (
        folder.joinpath(name).read_text(encoding="utf-8") for name in ("index.html", "style.css", *SCRIPTS)
    )
    script = "\n".join(scripts)
    allowed = [f"style-src {_digest(style)}", f"script-src {_digest(script)}"]
    closed = [f"{what} 'none'" for what in ("default-src", "base-uri", "form-action", "frame-ancestors")]
    policy = "; ".join([*closed, *allowed, "connect-src 'self'", "img-src data:"])
    return Page(html.replace("{style}", style).replace("{script}", script), policy)


def _digest(text: str) -> str:
    """Return the source expression of an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
