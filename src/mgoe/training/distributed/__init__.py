"""Several processes that train one model: the process group, and tables whose rows are spread over it."""
