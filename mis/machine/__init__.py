"""The facts of a machine, and what they mean for trainings and searches."""
