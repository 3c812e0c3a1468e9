"""Data parallelism against experiment parallelism, measured."""
