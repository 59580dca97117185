"""Speculation: guess tokens, have the model judge several at once, keep what it would have drawn itself."""
