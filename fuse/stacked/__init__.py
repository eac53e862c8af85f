"""Runs of one architecture that train in lockstep: parameters stacked, E models' batches in one."""
