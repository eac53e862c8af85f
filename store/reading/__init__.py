"""How features come off the disk: shard files without zarr, and readers that keep them where there is room."""
