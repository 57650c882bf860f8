"""The engine on Spark: it sorts and folds the log where the log is stored, and its workers run the readings.

The process that builds learns the sketch and the macro nodes, from a sample, and writes all files.
"""
