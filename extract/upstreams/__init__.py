"""Published audio-visual models as plain torch modules, and the way from their checkpoints to files that are safe to load."""
