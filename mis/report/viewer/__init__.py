"""The page on which evaluated cases are looked at in 3-D."""
