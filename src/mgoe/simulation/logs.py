"""Writing simulated logs of any size, and the truth behind them."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mgoe._util.files import atomic_folder, clear_partial, exclusive, write_json
from mgoe.config import NegativeSettings, Settings, check_settings
from mgoe.data.events import sample_at_moments, uniforms
from mgoe.errors import ConfigError, OutputError
from mgoe.metrics import auc
from mgoe.simulation.chance import chances, label_chances, moment_chances
from mgoe.simulation.content import write_contents
from mgoe.simulation.draw import CHECK, Day, Exposures, draw_log
from mgoe.simulation.settings import DEVICES, WorldSettings
from mgoe.simulation.truth import Truth
from mgoe.simulation.world import make_truth

Form = Literal["events", "exposures", "both"]

SUMMARY = "summary.json"
_EVENTS = pa.schema(
    {
        "user_id": pa.int64(),
        "item_id": pa.int64(),
        "timestamp": pa.timestamp("ms"),
        "behavior": pa.dictionary(pa.int8(), pa.string()),
    }
)
_PLAIN = pa.int64(), pa.float32()  # of many values, which a dictionary would only lengthen
_NEGATIVES = 3  # per positive, where the best AUC on an event log is measured
_CHECK_ROWS = 200_000
"""Drawn afresh from the last tenth of the days; gives AUC to about .003 for a rate of 2 %."""


class SimulationSummary(Settings):
    """What was written.

    Example:
        >>> few = {"users": 30, "items": 20, "exposures": 300, "days": 5}
        >>> small = WorldSettings(**few, user_communities=2, item_communities=2)
        >>> simulate(small, "log", form="exposures").exposures
        300
    """

    path: str
    """The folder."""
    form: Form
    """The logs in it."""
    users: int
    """Users of the world; those without exposures or events are not in the logs."""
    items: int
    days: int
    exposures: int
    """Items shown, written or not."""
    events: int
    """Behaviours that followed."""
    counts: dict[str, int]
    """Events by behaviour."""
    best_auc: dict[str, float]
    """Best reachable AUC by behaviour on the last tenth of the days, with device and position unknown: among
    exposures or, if only an event log is written, among positives and three negatives each, drawn by
    popularity, or at the moment if what users want depends on it."""
    seconds: float


def simulate(
    settings: WorldSettings,
    out: Path | str,
    *,
    events: int | None = None,
    form: Form = "both",
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> SimulationSummary:
    """Draw a world and write `exposures/`, `events/` and `truth/` below `out`, with side tables if it has
    content.

    An exposure log has `user_id, item_id, timestamp, position,
    device`, one 0/1 column per behaviour, `stay` (null without the first behaviour), `uniform` (0/1) if
    some items are drawn uniformly at random, and `scenario` if there are several. An event log has `user_id,
    item_id, timestamp, behavior`; all events of one exposure have its time.

    Args:
        settings: Settings of the world; `exposures` is the size.
        out: A new folder, or with `overwrite` one of an earlier simulation.
        events: Expected size of the event log, in place of `settings.exposures`.
        form: The logs to write.
        overwrite: Whether to replace an earlier simulation.
        on_progress: Called with the number of exposures drawn so far, and in all.

    Raises:
        ConfigError: An event log is asked for alone of a world whose best AUC is known on exposures alone.
        OutputError: The folder cannot be written, or holds something else.

    Example:
        >>> few = {"users": 30, "items": 20, "exposures": 300, "days": 5}
        >>> small = WorldSettings(**few, user_communities=2, item_communities=2)
        >>> summary = simulate(small, "log")
        >>> sorted(summary.best_auc)
        ['buy', 'cart', 'click', 'favour']
    """
    out = Path(out)
    if form == "events" and settings.known_on_exposures:
        raise ConfigError(
            "form",
            "a world with `uniform`, `popular_first` or several `scenarios` is known by its exposures, found "
            "`events`; write `exposures` or `both`",
        )
    with exclusive(out, "a simulated log"):
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if taken and not (out / SUMMARY).exists():
            raise OutputError(out, "holds files that no simulation wrote; choose a new folder")
        if taken and not overwrite:
            raise OutputError(out, "holds a simulated log already; choose a new folder, or `overwrite` it")
        clear_partial(out)
        if events is not None:
            wanted = settings.model_dump() | {"exposures": round(events / sum(settings.rates))}
            settings = check_settings(WorldSettings, wanted, "simulate")
        started = time.perf_counter()
        truth = make_truth(settings)
        with atomic_folder(out) as folder:
            truth.save(folder / "truth")
            if settings.content is not None:
                write_contents(truth, folder)
            counts = _write_logs(truth, folder, form, on_progress or (lambda done, total: None))
            summary = SimulationSummary(
                path=str(out),
                form=form,
                users=settings.users,
                items=settings.items,
                days=settings.days,
                exposures=settings.exposures,
                events=int(counts.sum()),
                counts=dict(zip(settings.names, counts.tolist(), strict=True)),
                best_auc=_best_auc(truth, form),
                seconds=time.perf_counter() - started,
            )
            write_json(folder / SUMMARY, vars(summary))
        return summary


def _writer(folder: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open the only file of a log, in a new folder."""
    folder.mkdir()
    times = [f.name for f in schema if pa.types.is_timestamp(f.type)]
    encoding: dict[str, Any] = {
        "use_dictionary": [f.name for f in schema if f.type not in _PLAIN and f.name not in times],
        "column_encoding": dict.fromkeys(times, "DELTA_BINARY_PACKED"),
    }
    return pq.ParquetWriter(folder / "part-00000.parquet", schema, compression="zstd", **encoding)


def _write_logs(
    truth: Truth, folder: Path, form: Form, on_progress: Callable[[int, int], None]
) -> NDArray[np.int64]:
    """Write chunk after chunk. Return the number of events of each behaviour. Shape (T,)."""
    settings = truth.settings
    counts, drawn = np.zeros(len(settings.names), np.int64), 0
    kinds = {"events": (_EVENTS, _event_table), "exposures": (_exposure_schema(settings), _exposure_table)}
    with ExitStack() as files:
        logs = [
            (files.enter_context(_writer(folder / name, schema)), table_of)
            for name, (schema, table_of) in kinds.items()
            if form in (name, "both")
        ]
        for _, shown in draw_log(truth):
            counts += [np.count_nonzero(shown.done(t)) for t in range(len(counts))]
            for file, table_of in logs:
                file.write_table(table_of(shown, truth, file.schema))
            drawn += len(shown.user)
            on_progress(drawn, settings.exposures)
    return counts


def _exposure_schema(settings: WorldSettings) -> pa.Schema:
    return pa.schema(
        {
            "user_id": pa.int64(),
            "item_id": pa.int64(),
            "timestamp": pa.timestamp("ms"),
            "position": pa.int8(),
            "device": pa.dictionary(pa.int8(), pa.string()),
            **{name: pa.int8() for name in settings.names},
            "stay": pa.float32(),
            **({"uniform": pa.int8()} if settings.uniform else {}),
            **({"scenario": pa.dictionary(pa.int8(), pa.string())} if len(settings.scenarios) > 1 else {}),
        }
    )


def _event_table(shown: Exposures, truth: Truth, schema: pa.Schema) -> pa.Table:
    names = list(truth.settings.names)
    row, behavior = np.nonzero(shown.task_mask[:, None] >> np.arange(len(names)) & 1)
    return pa.table(
        [
            truth.user_ids.of(shown.user[row]),
            truth.item_ids.of(shown.item[row]),
            shown.time[row],
            pa.DictionaryArray.from_arrays(behavior.astype(np.int8), names),
        ],
        schema=schema,
    )


def _exposure_table(shown: Exposures, truth: Truth, schema: pa.Schema) -> pa.Table:
    scenarios = pa.DictionaryArray.from_arrays(shown.scenario, list(truth.settings.scenario_names))
    return pa.table(
        [
            truth.user_ids.of(shown.user),
            truth.item_ids.of(shown.item),
            shown.time,
            shown.position,
            pa.DictionaryArray.from_arrays(shown.device, list(DEVICES)),
            *(shown.done(t) for t in range(len(truth.settings.names))),
            pa.array(shown.stay, from_pandas=True),
            *([shown.uniform.astype(np.int8)] if truth.settings.uniform else []),
            *([scenarios] if len(truth.settings.scenarios) > 1 else []),
        ],
        schema=schema,
    )


def _best_auc(truth: Truth, form: Form) -> dict[str, float]:
    """Return the best possible AUC of each behaviour, on a fresh draw of what the policy shows on the last
    days, or on the log itself where events depend on the moment."""
    settings = truth.settings
    if settings.at_moments and form == "events":
        user, item, _, time, _, mask = (
            moment_examples(truth, _NEGATIVES).query(f"day >= {settings.days * 0.9}").to_numpy().T
        )
        best = moment_chances(truth, user, item, time.astype("datetime64[ms]"), _NEGATIVES)
        return {name: auc(mask >> t & 1, best[:, t]) for t, name in enumerate(settings.names)}
    days = np.unique(np.linspace(settings.days * 0.9, settings.days - 1, 8).astype(int))
    shown = [Day(truth, int(day), CHECK, -(-_CHECK_ROWS // len(days))).exposures(0) for day in days]
    user, item, mask = (
        np.concatenate([getattr(s, name) for s in shown]) for name in ("user", "item", "task_mask")
    )
    day = np.repeat(days, [len(s.user) for s in shown])
    if form == "events":
        rng = np.random.default_rng([settings.seed, CHECK])
        user, item, mask, day = with_negatives(user, item, mask, day, rng)
        best = label_chances(truth, user, item, day, _NEGATIVES)
    else:
        best = chances(truth, user, item, day)
    return {name: auc(mask >> t & 1, best[:, t]) for t, name in enumerate(settings.names)}


def moment_examples(truth: Truth, ratio: int) -> pd.DataFrame:
    """Return the examples of a world's event log that read up to their moment, with a day as bucket.

    Negatives are drawn as the library draws them.

    Returns:
        Columns `user`, `item` (indices), `day`, `time` (milliseconds), `known` (the first event of a
            positive's item) and `task_mask` (0 of negatives). Positives come first.
    """
    events = (
        pd.concat([pd.DataFrame({"day": day, **vars(chunk)}) for day, chunk in draw_log(truth)])
        .query("task_mask > 0")
        .sort_values(["day", "user", "item", "time"])
    )
    events["known"] = events.groupby("item")["time"].transform("min")
    first = np.flatnonzero(~events.duplicated(["day", "user", "item"]))
    found = events[["user", "item", "day", "time", "known", "task_mask"]].iloc[first].astype(np.int64)
    found["task_mask"] = np.bitwise_or.reduceat(events["task_mask"].to_numpy(), first)
    user, item, day, time, known = found.to_numpy().T[:5].copy()
    kept, source, drawn = sample_at_moments(
        user, item, day, time, known, NegativeSettings(ratio=ratio, seed=truth.settings.seed), uniforms
    )
    return pd.concat([found.iloc[kept], found.iloc[source].assign(item=drawn, task_mask=0)])


def with_negatives(
    user: NDArray, item: NDArray, task_mask: NDArray, day: NDArray, rng: np.random.Generator
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return positives, followed by negatives: for each positive, items of other positives of its day."""
    positive = np.flatnonzero(task_mask)
    user, item, day = user[positive], item[positive], day[positive]
    first, last = np.searchsorted(day, day), np.searchsorted(day, day, "right")
    drawn = [item[rng.integers(first, last)] for _ in range(_NEGATIVES)]
    return (
        np.tile(user, _NEGATIVES + 1),
        np.concatenate([item, *drawn]),
        np.pad(task_mask[positive], (0, len(positive) * _NEGATIVES)),
        np.tile(day, _NEGATIVES + 1),
    )
