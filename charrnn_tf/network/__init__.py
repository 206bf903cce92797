"""The model: LSTM and GRU cells with their equations, loops with hand-derived gradients, matrix products by precision,
initial weights, and the stateful Keras model. May import the rooms up to `machine`."""
