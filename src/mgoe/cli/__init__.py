"""The command `mgoe`: parse, call, print. Commands import slow modules themselves."""

from mgoe.cli.app import app

__all__ = ["app", "main"]
main = app
"""What the script `mgoe` calls."""
