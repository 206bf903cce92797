"""Optional: this machine's speed, compared with PyTorch and plain Keras. May import the rooms up to `training`; only `cli`
imports it."""
