"""All data sets by name."""

from mgoe.config import did_you_mean
from mgoe.datasets import aliccp, aliexpress, kuairand, kuairec, movielens, taobao, tmall
from mgoe.datasets.dataset import DataSet
from mgoe.errors import ConfigError

DATA_SETS: dict[str, DataSet] = {
    data.name: data
    for data in (
        taobao.TAOBAO,
        tmall.TMALL,
        *kuairand.KUAIRAND,
        *aliexpress.ALIEXPRESS,
        aliccp.ALI_CCP,
        *movielens.MOVIELENS,
        kuairec.KUAIREC,
    )
}
"""The data sets by name."""


def find(name: str) -> DataSet:
    """Return a data set by name.

    Raises:
        ConfigError: The name is unknown.

    Example:
        >>> find("taobao").form
        'events'
    """
    if name not in DATA_SETS:
        raise ConfigError(
            name,
            f"is not a known data set{did_you_mean(name, list(DATA_SETS))}; `mgoe data list` lists them all",
        )
    return DATA_SETS[name]
