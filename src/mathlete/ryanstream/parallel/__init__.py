"""Tensor parallelism: one model over several processes, each with a slice of every layer."""
