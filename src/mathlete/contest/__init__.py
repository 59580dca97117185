"""The clock, the stopping rules and the policies of a contest. Pure functions over attempts and time."""
