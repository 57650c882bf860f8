"""The command `mgoe`: parse, call, print. Whatever is slow to import is imported by the command that needs it."""

from mgoe.cli.app import app, main

__all__ = ["app", "main"]
