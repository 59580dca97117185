"""Choosing one answer from a pool of attempts. Knows attempts, not where they come from."""
