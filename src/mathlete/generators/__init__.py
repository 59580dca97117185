"""Adapters that turn an inference engine or server into a `Generator`, one a file."""
