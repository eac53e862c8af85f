"""Fusion of cached features: models, training, sweeps and their report.

Where to begin: `choice.choose_streams`, `data.features_from_store` or `arrays.features_from_arrays` -> `Features`;
`sweep.grid` and `sweep.run_sweep` -> `Run`s; `summary.summarise` and `report.write_report`; later `run.load_run`.
Nothing is imported here, so that names and settings can be listed without torch.
"""
