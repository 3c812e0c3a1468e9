"""Searches, trainings and comparisons as jobs of SLURM: their batch scripts, and Ray on the nodes of a job."""
