"""What the lists of a comparison are to find, and what models order items by."""

from mgoe.bundle.objective import Objective, ObjectiveError, read_objective
from mgoe.bundle.sampling import chain
from mgoe.config import RunSettings, TopNSettings
from mgoe.errors import ConfigError


def relevant_tasks(settings: RunSettings, topn: TopNSettings) -> list[str]:
    """Return the names of the tasks that make an item relevant."""
    return topn.tasks or [task.name for task in settings.tasks if task.kind == "binary"]


def list_objective(settings: RunSettings, topn: TopNSettings) -> Objective:
    """Return what models order items by: by default the sum of the probabilities of the relevant tasks, each
    of which counts with the probability that it is done at all.

    Raises:
        ConfigError: `topn.objective` breaks the grammar, or names no task of the log.
    """
    done = (" * ".join(chain(name, settings.tasks)) for name in relevant_tasks(settings, topn))
    try:
        return read_objective(topn.objective or " + ".join(done), settings.task_names)
    except ObjectiveError as error:
        raise ConfigError("topn.objective", error.message) from None
