"""Facts of an object, as one line of text and, in a notebook, as a small table."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from html import escape


class Shown(ABC):
    """Base of objects that show the same facts everywhere.

    The table has no styles, so that those of the notebook apply, light or dark.
    """

    @abstractmethod
    def _facts(self) -> Mapping[str, object]:
        """Return what is shown, by name."""

    def __repr__(self) -> str:
        facts = "; ".join(f"{name} {_text(value)}" for name, value in self._facts().items())
        return f"{type(self).__name__}({facts})"

    def _repr_html_(self) -> str:
        lines = "".join(
            f'<tr><th scope="row" style="text-align: left">{escape(name)}</th>'
            f'<td style="text-align: left">{escape(_text(value))}</td></tr>'
            for name, value in self._facts().items()
        )
        return f"<p><b>{type(self).__name__}</b></p><table><tbody>{lines}</tbody></table>"


def _text(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
