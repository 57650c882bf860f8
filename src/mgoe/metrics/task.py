"""The facts about a task that metrics need."""

from __future__ import annotations

from typing import Protocol


class Task(Protocol):
    """A task by its name and its kind, `binary` or `regression`."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
