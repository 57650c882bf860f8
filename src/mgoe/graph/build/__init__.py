"""Building a macro graph, stage by stage."""
