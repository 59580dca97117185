"""Running programs that a model wrote, in separate, limited processes. Does not know models or problems."""
