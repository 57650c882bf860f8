"""Experiments on real users: their rows, effects, plans, checks, reports, and estimates from the log."""
