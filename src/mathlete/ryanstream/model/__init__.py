"""The transformer, its weights, its operations and its tokenizer. Knows nothing of scheduling."""
