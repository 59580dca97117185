"""Whether a model fits a machine, how fast it would be there, and what a problem of a contest gets. Arithmetic only."""
