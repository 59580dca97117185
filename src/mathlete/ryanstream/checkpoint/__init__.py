"""Reading weights (GGUF, safetensors) and the engine's own memory-mapped checkpoint."""
