"""The command line's commands, one file a group; each imports what it needs when it runs."""
