"""`python -m bmla` is the same as the command `bmla`."""

from .cli import main

main()
