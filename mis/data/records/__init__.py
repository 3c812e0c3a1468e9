"""From checked cases to records, and back."""
