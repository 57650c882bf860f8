"""What a page loads from a network. The site loads nothing, so it works from a folder."""

import re

ELEMENT = (
    r"""<(?:script|link|img|iframe|source|video|audio)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)"""
)
STYLE = r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')\s]+)"""


def loaded(text: str) -> list[str]:
    """Return the addresses that a browser loads for a page or a style sheet, without links to follow."""
    return re.findall(ELEMENT, text) + re.findall(STYLE, text)
