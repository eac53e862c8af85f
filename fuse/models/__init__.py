"""The paper's models, one file each."""
