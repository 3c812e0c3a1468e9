"""Records: preprocessed cases on disk, one TFRecord file for each, with an index."""
