"""The forward pass: a Program, traced once from a model file, and the executors that run it."""
