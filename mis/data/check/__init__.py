"""Check a data set."""
