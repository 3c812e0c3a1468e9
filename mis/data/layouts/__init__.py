"""The layouts in which brain tumour data sets come: each becomes the same cases."""
