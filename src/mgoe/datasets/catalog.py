"""All data sets, by name."""

from __future__ import annotations

from mgoe.config import did_you_mean
from mgoe.datasets import aliccp, aliexpress, amazon, kuairand, kuairec, movielens, taobao, tenrec
from mgoe.datasets.dataset import DataSet
from mgoe.errors import ConfigError

_ALL = (
    taobao.TAOBAO,
    tenrec.TENREC,
    *kuairand.KUAIRAND,
    *aliexpress.ALIEXPRESS,
    aliccp.ALI_CCP,
    *movielens.MOVIELENS,
    amazon.ELECTRONICS,
    kuairec.KUAIREC,
)
DATA_SETS: dict[str, DataSet] = {data.name: data for data in _ALL}
"""By name."""


def find(name: str) -> DataSet:
    """A data set by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in DATA_SETS:
        raise ConfigError(
            name,
            f"is no data set known here{did_you_mean(name, list(DATA_SETS))}; `mgoe data list` names them all",
        )
    return DATA_SETS[name]
