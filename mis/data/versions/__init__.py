"""Where a data set is from, and which version of it a run had."""
