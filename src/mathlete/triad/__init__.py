"""Attempts at a problem and the one loop that drives them. Does not know which generator it drives."""
