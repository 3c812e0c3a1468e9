"""The real SLURM, and nodes with addresses of their own: `.ci/cluster` runs these tests."""
