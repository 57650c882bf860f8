"""What is said below a table: what tells apart cells that settings do not, and searches of which a part failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mgoe._util.files import read_json
from mgoe.experiments.model_resolution import is_boosted
from mgoe.experiments.plan import Log, Plan
from mgoe.experiments.tuning import is_done

Line = Mapping[str, Any]


def notes_of(plan: Plan, log: Log, models: Iterable[str], lines: Sequence[Line]) -> list[str]:
    """All that is to be said of a table on a log.

    Args:
        plan: Of the comparison.
        log: The log.
        models: Of the table.
        lines: Of its finished cells.
    """
    networks = [
        line for line in lines if not is_boosted(plan.contestants[line["model"]].settings())
    ]  # trees know one precision
    bases = (
        dict.fromkeys(plan.contestants[model].base for model in models)
        if plan.settings.tune is not None
        else ()
    )
    searches = {base: read_json(log.tuned(base))["trials"] for base in bases if is_done(log.tuned(base))}
    return [*failed_trials(searches), *revisions_of(lines), *precisions_of(networks), *processors_of(lines)]


def failed_trials(searches: Mapping[str, Sequence[Line]]) -> list[str]:
    """A sentence a model whose search lost trials, with the reason that most of these have."""
    found = []
    for model, trials in searches.items():
        reasons = Counter(trial["failed"] for trial in trials if trial["value"] is None)
        if reasons:
            found.append(
                f"search of {model}: {reasons.total()} of {len(trials)} trials failed ({reasons.most_common(1)[0][0]})"
            )
    return found


def revisions_of(lines: Iterable[Line]) -> list[str]:
    """A sentence where cells were made by different code: settings are compared before cells stand together, code is not."""
    return _several(
        "Cells were made by several revisions of the code: {}.",
        (line["revision"] or "unknown" for line in lines),
    )


def precisions_of(lines: Iterable[Line]) -> list[str]:
    """A sentence where products were of different precision, which `training.precision: auto` leaves to the machine."""
    return _several(
        "Cells were trained in several precisions: {}.", (line.get("precision") for line in lines)
    )


def processors_of(lines: Iterable[Line]) -> list[str]:
    """A sentence where costs cannot be compared, since processors differ."""
    sentence = (
        "Costs (training s, CPU s, scored/s) are of several processors, and do not compare between them: {}."
    )
    return _several(sentence, (line.get("processor") for line in lines))


def _several(sentence: str, values: Iterable[str | None]) -> list[str]:
    """The sentence with each value and its number of cells, where there are several; cells that tell none are passed over."""
    counts = Counter(value for value in values if value is not None)
    return (
        [sentence.format(", ".join(f"{value} ({cells})" for value, cells in counts.most_common()))]
        if len(counts) > 1
        else []
    )
