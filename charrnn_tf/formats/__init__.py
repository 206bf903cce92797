"""Optional: models for other programs, and other programs' models. One module per format. May import the rooms up to
`training`; only `api` and `cli` import it."""
