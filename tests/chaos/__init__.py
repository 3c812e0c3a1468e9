"""Random searches and trainings under random faults: `python -m tests.chaos --hours 1 --seed 7`."""
