"""A trained model at work: generating text and scoring texts. May import the rooms up to `runs`."""
