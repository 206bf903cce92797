"""Optional: what a model has learned, as pages, plots and TensorBoard events. May import the rooms up to `training`;
only `api` and `cli` import it."""
