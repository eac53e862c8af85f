"""Ways to keep one modality from drowning the other while both are trained, one file each."""
