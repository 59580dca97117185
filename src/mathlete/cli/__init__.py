"""The command line. Imports what is heavy only when a command needs it."""
