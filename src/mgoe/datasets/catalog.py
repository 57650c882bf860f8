"""All data sets by name."""

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
"""The data sets by name."""


def find(name: str) -> DataSet:
    """Return a data set by name.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in DATA_SETS:
        near = did_you_mean(name, list(DATA_SETS))
        raise ConfigError(name, f"is not a known data set{near}; `mgoe data list` lists them all")
    return DATA_SETS[name]
