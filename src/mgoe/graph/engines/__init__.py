"""Where pairs are counted and read: in this process or on Spark."""
