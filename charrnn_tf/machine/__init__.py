"""The computer: cores, CPU instructions, GPUs and memory, TensorFlow's quiet start, and what a model takes of it.
May import `settings` and `text`."""
