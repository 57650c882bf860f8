"""Errors that a user can fix: one root, one subclass per concern.

A message names the place (file, column, row or config key), the rule, what was found, and the fix. The
command line prints it as one sentence and exits with code 2. Anything that is not a `MgoeError` is a defect
of this library and keeps its traceback.
"""

from __future__ import annotations


class MgoeError(Exception):
    """Root of all errors that a user can fix.

    Args:
        place: A file, a column, a row or a config key.
        message: The rule, what was found, and the fix.
    """

    def __init__(self, place: object, message: str):
        self.place = str(place)
        self.message = message
        super().__init__(f"{self.place}: {message}")

    def __reduce__(self) -> tuple[type[MgoeError], tuple[str, str]]:
        """Keep both parts when an error crosses to another process."""
        return type(self), (self.place, self.message)


class ConfigError(MgoeError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(MgoeError):
    """A log or a side table cannot be read, or breaks its schema."""


class GraphError(MgoeError):
    """A macro graph cannot be built, opened or read."""


class SparkError(MgoeError):
    """Spark does not start, or one of its tasks failed."""


class TrainingError(MgoeError):
    """Training cannot start or continue."""


class ReportedByPeer(TrainingError):
    """Another process of the same command failed first and reports why, so this one stays silent."""


class BundleError(MgoeError):
    """A bundle is missing, damaged, of another version, or lacks what is asked of it."""


class OutputError(MgoeError):
    """An output folder cannot be written, is finished already, or belongs to other settings."""


class BusyError(OutputError):
    """Another process writes what a command would write."""


class EventError(MgoeError):
    """A live event breaks a rule."""


class RequestError(MgoeError):
    """A request to the service is well formed, but cannot be answered."""


class ServiceError(MgoeError):
    """A service refused a request, or does not start."""


class StoreError(MgoeError):
    """A log of live events cannot be reached, or is damaged."""


class OtherLogError(StoreError):
    """A log does not continue where it was read before: an older copy, an emptied or another log."""


class OtherDeploymentError(StoreError):
    """A log, a registry or a bundle is of another deployment than what it is used with."""


class DamagedLogError(StoreError):
    """A log of live events holds what nobody wrote there; it must be restored."""


class AwayError(StoreError):
    """A log cannot be reached at present. What needs it works again once it is back."""


class MissingExtra(MgoeError):
    """An optional part of the library is not installed."""
