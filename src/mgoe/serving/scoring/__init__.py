"""Candidates of one user or several, scored, ranked and explained."""
