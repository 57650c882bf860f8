"""What a log is: opening, checking, splitting by time, examples and history.

Axes: `B` batch, `T` tasks, `U` users, `I` items, `Ku`/`Ki` macro nodes, `D` width, `H` aggregate width, `R`
recent neighbours, `E` distinct pairs, `N` examples.
"""

from mgoe.data.arrow import to_arrow
from mgoe.data.auto import choices, read_settings
from mgoe.data.events import task_masks
from mgoe.data.example_file import ExampleFile
from mgoe.data.examples import SPLITS, Examples, Split, join
from mgoe.data.features import FeatureEncoders
from mgoe.data.guess import guess
from mgoe.data.history import WholeLog, whole_log
from mgoe.data.log import as_table, connect, on_a_cluster, open_log, open_on_spark, place_of
from mgoe.data.prepare import prepare
from mgoe.data.prepared import Encoders, Prepared
from mgoe.data.profile import profile
from mgoe.data.schema import check_ids, read_rows
from mgoe.data.side import SideFeatures
from mgoe.data.vocabulary import Vocabulary
from mgoe.data.window import later_events, newest_window

__all__ = [
    "SPLITS",
    "Encoders",
    "ExampleFile",
    "Examples",
    "FeatureEncoders",
    "Prepared",
    "SideFeatures",
    "Split",
    "Vocabulary",
    "WholeLog",
    "as_table",
    "check_ids",
    "choices",
    "connect",
    "guess",
    "join",
    "later_events",
    "newest_window",
    "on_a_cluster",
    "open_log",
    "open_on_spark",
    "place_of",
    "prepare",
    "profile",
    "read_rows",
    "read_settings",
    "task_masks",
    "to_arrow",
    "whole_log",
]
