"""Tasks with gold answers, metrics, the run store and what is exported from it. Knows no model and no engine."""
