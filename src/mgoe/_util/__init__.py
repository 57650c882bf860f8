"""Tools that know nothing of the domain: files, arrays on disk, prefetching, progress, optional libraries."""
