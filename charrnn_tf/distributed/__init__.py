"""Optional: training on several GPUs or machines, with `tf.distribute`. May import the rooms up to `training`; only `api`
imports it, for runs with a strategy."""
