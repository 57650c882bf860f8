"""The base of all answers."""

from pydantic import BaseModel

Id = int | str
"""As in the log."""


class Answer(BaseModel, extra="forbid", use_attribute_docstrings=True):
    """An object, with no keys but these."""


class WrittenFile(Answer):
    """A file of rows that was written."""

    path: str
    rows: int
