"""Comparisons: models x seeds x logs x variants.

plan        settings -> logs, contestants, cells, and where they lie
kept        what is there already, and whether it is still what is asked for
judged      which rows cells are judged on
processes   jobs in processes of their own
work        what these do
tuning      settings searched on validation
records     results.jsonl
damaged     what cannot be read any more
taken       cells of another machine, from its results.jsonl
notes       what is said below a table
outcome     finished cells -> tables
compare     all of it
"""
