"""Public data sets: what each is, fetching it, and parsing its published files into the library's log forms.

A data set is a `DataSet`: facts for people, addresses, and one function that writes its log. Whatever the published files look like,
rows stay in DuckDB from the file to Parquet, so that a set larger than memory is prepared in bounded memory.
"""

from mgoe.datasets.catalog import DATA_SETS, find
from mgoe.datasets.dataset import DataSet, Download
from mgoe.datasets.fetch import Fetched, fetch
from mgoe.datasets.prepare import PreparedLog, prepare

__all__ = ["DATA_SETS", "DataSet", "Download", "Fetched", "PreparedLog", "fetch", "find", "prepare"]
