"""What the command and Python share: a run from text and settings, and its display. May import all rooms but `cli`,
optional ones only inside functions."""
