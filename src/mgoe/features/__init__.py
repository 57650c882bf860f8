"""What a model reads of a (user, item) pair, as of a stated time. One file per input group, one kernel for
every reader.

Training, evaluation, batch scoring, the bundle and the live service read pairs through `Reader`.

Axes: `B` pairs, `T` tasks, `U` users, `I` items, `Ku`/`Ki` macro nodes, `R` recent neighbours, `E` distinct
pairs.
"""

from mgoe.features.group import (
    CONTEXT,
    ITEM,
    PAIR,
    USER,
    Arrays,
    InputGroup,
    Key,
    NodeGroup,
    Owner,
    Part,
    dense,
)
from mgoe.features.groups import GROUPS, Reader, batch_keys, input_groups, read
from mgoe.features.overlay import EventTimes, Later, NodeOverlay, Overlay, PairOverlay, RateCells
from mgoe.features.spec import CategoricalSpec, FeatureSpec, TaskSpec
from mgoe.features.view import Pairs, Source, View

__all__ = [
    "CONTEXT",
    "GROUPS",
    "ITEM",
    "PAIR",
    "USER",
    "Arrays",
    "CategoricalSpec",
    "EventTimes",
    "FeatureSpec",
    "InputGroup",
    "Key",
    "Later",
    "NodeGroup",
    "NodeOverlay",
    "Overlay",
    "Owner",
    "PairOverlay",
    "Pairs",
    "Part",
    "RateCells",
    "Reader",
    "Source",
    "TaskSpec",
    "View",
    "batch_keys",
    "dense",
    "input_groups",
    "read",
]
