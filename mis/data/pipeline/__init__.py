"""From records to the batches that a training sees."""
