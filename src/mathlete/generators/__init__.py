"""Sources of completions, one adapter a file. They know nothing about solving."""
