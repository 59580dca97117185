"""One session of a run, for whoever starts it: the command line, a notebook, another harness."""
