"""Reading answers exactly, and checking them. Knows no models."""
