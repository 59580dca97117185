"""Mathlete solves olympiad mathematics with language models that people run themselves."""

__version__ = "0.1.0"
