"""Tests of mis.slurm that need no SLURM; those with it are in tests/cluster."""
