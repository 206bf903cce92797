"""The computer: cores, CPU instructions, GPUs and memory, TensorFlow's quiet start, and what a model needs of them.
May import `settings` and `text`."""
