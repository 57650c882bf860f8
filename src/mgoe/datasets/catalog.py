"""All data sets by name."""

from mgoe.config import did_you_mean, named, names
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
    """Return a data set by name, built in or of an extension.

    Raises:
        ConfigError: The name is unknown, or the extension cannot be imported.

    Example:
        >>> find("taobao").form
        'events'
    """
    if name not in (known := names("mgoe.data_sets", DATA_SETS)):
        raise ConfigError(
            name,
            f"is not a known data set{did_you_mean(name, known)}; `mgoe data list` lists them all",
        )
    return named("mgoe.data_sets", DATA_SETS, name, DataSet)
