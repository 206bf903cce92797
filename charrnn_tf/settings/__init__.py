"""Settings of models and runs: fields and bounds, presets, how files and options combine, and the default preset's rule.
Imports only `errors` and `files`."""
