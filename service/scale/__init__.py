"""Hands chunks to worker processes of this machine or others, through Dask. Loaded only if DASK_SCHEDULER is set."""
