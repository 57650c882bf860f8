"""What a log is: opening, checking, splitting by time, examples and history.

Axes: `B` batch, `T` tasks, `U` users, `I` items, `Ku`/`Ki` macro nodes, `D` width, `H` aggregate width, `R` recents, `E` distinct
pairs, `N` examples.
"""

from mgoe.data.examples import SPLITS, Examples, Split
from mgoe.data.prepare import prepare
from mgoe.data.prepared import Prepared
from mgoe.data.vocabulary import Vocabulary

__all__ = ["SPLITS", "Examples", "Prepared", "Split", "Vocabulary", "prepare"]
