"""Mathlete as a server that speaks OpenAI's chat protocol."""
