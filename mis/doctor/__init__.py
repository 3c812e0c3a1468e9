"""Whether everything is there: this machine, the Ray cluster, MLflow, and where things are kept."""
