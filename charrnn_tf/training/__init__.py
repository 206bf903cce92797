"""The run: the loop, what is due when, learning rate, randomness, one training step, many steps in a compiled call.
May import the rooms up to `inference`."""
