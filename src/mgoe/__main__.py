"""`python -m mgoe` is the command `mgoe`."""

from mgoe.cli import main

main()
