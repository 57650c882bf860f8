"""One user's candidates, scored, ranked and explained."""
