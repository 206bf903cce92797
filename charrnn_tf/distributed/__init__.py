"""Optional: training on several GPUs or machines. Workers meet, and `tf.distribute` carries their sums. May import the
rooms up to `training`; nothing but `api` imports it, where a strategy is asked for."""
