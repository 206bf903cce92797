"""Code that the command and Python share: starts runs from texts and settings, and displays them. May import all rooms
except `cli`, optional ones only inside functions."""
