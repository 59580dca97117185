"""Prompts, one a file. `{name}` marks what is filled in."""
