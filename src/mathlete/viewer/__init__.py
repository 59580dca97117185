"""A run's pages, served on this machine while the run goes on. Never imports torch."""
