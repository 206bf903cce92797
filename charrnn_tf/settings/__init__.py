"""Settings of models and runs: their fields and bounds, presets, how files and options combine, and the rule that
the default preset follows. Imports only `errors` and `files`."""
