"""The experiment's values: params.yaml as one frozen, typed tree, a file for each section."""
