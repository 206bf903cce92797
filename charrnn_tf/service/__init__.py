"""Optional: a model behind HTTP. Imports the main path only."""
