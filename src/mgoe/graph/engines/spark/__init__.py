"""The engine on Spark: it sorts and folds the log where the log lies, and its workers read the pairs of every snapshot.

What is learned (the sketch, the macro nodes) stays with the process that builds, on a sample, as does everything that is written.
"""

from mgoe.graph.engines.spark.engine import Spark
from mgoe.graph.engines.spark.session import running_backend, spark_errors

__all__ = ["Spark", "running_backend", "spark_errors"]
