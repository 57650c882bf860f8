"""MGOE, the Macro Graph of Experts."""
