"""The inference engine: token ids in, token ids out. Knows nothing of problems or answers."""
