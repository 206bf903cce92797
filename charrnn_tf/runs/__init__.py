"""A run's folder: its records and metrics.csv, finding, writing and restoring checkpoints. May import the rooms up to
`network`; finding and reading records needs no TensorFlow."""
