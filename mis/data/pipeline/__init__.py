"""The input pipeline: from records to the batches of a training."""
