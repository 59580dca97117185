"""Checks that a model writes and the harness runs: programs that test answers, and what their runs amount to."""
