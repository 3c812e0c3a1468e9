"""The check of a data set: each case by itself, and all cases against each other."""
