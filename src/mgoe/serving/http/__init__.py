"""The service: routes, limits, processes, and bundles replaced while requests run."""
