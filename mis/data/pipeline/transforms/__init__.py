"""The transforms of the augmentation, one a file; `mis.data.pipeline.augment` lists them in their order."""
