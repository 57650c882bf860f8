"""What every package may use and nothing of which knows the domain: files, arrays on disk, prefetching, optional libraries."""
