"""Data sets as their owners distribute them: one adapter each, from a root folder to a clip table."""
