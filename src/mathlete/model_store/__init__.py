"""Where model files come from and where they are kept. Knows bytes and checksums, not what is inside a model."""
