"""Where a log is prepared: in this process, or on Spark."""
