"""Who watches a training: the Tracker protocol, its MLflow form, where a run comes from."""
