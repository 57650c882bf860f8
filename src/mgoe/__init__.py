"""MGOE, the Macro Graph of Experts: from behaviour logs to a served multi-task ranking model."""

__version__ = "0.1.0"
