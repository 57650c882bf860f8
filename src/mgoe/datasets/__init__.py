"""Public data sets: describe them, fetch them, and parse their published files into logs.

A data set is a `DataSet`: facts for people, addresses, and one function that writes its log. Rows stay in
DuckDB from the published file to Parquet, so a data set larger than memory is prepared in bounded memory.
"""

from mgoe.datasets.catalog import DATA_SETS, find
from mgoe.datasets.dataset import DataSet, Download
from mgoe.datasets.fetch import Fetched, fetch
from mgoe.datasets.prepare import PreparedLog, prepare

__all__ = ["DATA_SETS", "DataSet", "Download", "Fetched", "PreparedLog", "fetch", "find", "prepare"]
