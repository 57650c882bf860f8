"""Counting each event once."""

from __future__ import annotations

from mgoe.serving.events.event import Event, Interaction


class SeenEvents:
    """Events that have been counted. An event with the id of an earlier one counts no more; neither does an
    interaction.

    Args:
        earlier: Events that count as seen too; they are only read.
    """

    def __init__(self, *earlier: SeenEvents):
        self._ids: set[str] = set()
        self._interactions: set[Interaction] = set()
        self._all = (self, *earlier)

    def add(self, event: Event, task_mask: int) -> set[Interaction]:
        """Remember an event that does some tasks, and return those of its interactions that have not been
        seen."""
        if event.id is not None:
            if any(event.id in seen._ids for seen in self._all):
                return set()
            self._ids.add(event.id)
        new = event.interactions(task_mask)
        for seen in self._all:
            new = new - seen._interactions
        self._interactions |= new
        return new

    def update(self, other: SeenEvents) -> None:
        """Remember the events that another has seen, those before it aside."""
        self._ids |= other._ids
        self._interactions |= other._interactions
