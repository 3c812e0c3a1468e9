"""From NIfTI files to tf.data: layouts, checks, the phantom, the split, records."""
