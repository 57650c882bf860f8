"""The command `mgoe`: parse, call, print. Commands import slow modules themselves."""

from mgoe.cli.app import app, main

__all__ = ["app", "main"]
