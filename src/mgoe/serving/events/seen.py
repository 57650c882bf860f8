"""Counting each event once."""

from __future__ import annotations

from mgoe.serving.events.event import Event, Interaction


class SeenEvents:
    """Events that have been counted: of events with one id the first counts, and each interaction once.

    Args:
        earlier: Events that count as seen too; they are only read.
    """

    def __init__(self, *earlier: SeenEvents):
        self._ids: set[str] = set()
        self._interactions: set[Interaction] = set()
        self._earlier = earlier

    def add(self, event: Event, task_mask: int) -> set[Interaction]:
        """Remember an event that does some tasks, and return its interactions that are new."""
        known, new = (self, *self._earlier), event.interactions(task_mask)
        if event.id is not None:
            if any(event.id in seen._ids for seen in known):
                return set()
            self._ids.add(event.id)
        for seen in known:
            new = new - seen._interactions
        self._interactions |= new
        return new

    def update(self, other: SeenEvents) -> None:
        """Remember the events that another has seen, those before it aside."""
        self._ids |= other._ids
        self._interactions |= other._interactions
