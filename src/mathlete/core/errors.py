"""The errors a person may see. Each says what happened, where, and what to do next."""

from __future__ import annotations


class MathleteError(Exception):
    """Base of every error that is reported to the user as one message, without a traceback."""

    exit_code: int = 1


class InputError(MathleteError):
    """The user's input (a file, a flag, a column) cannot be used as it is."""

    exit_code = 2


class ModelError(MathleteError):
    """A model file is missing, incomplete, damaged or of an unknown kind."""

    exit_code = 3


class StorageError(MathleteError):
    """The run store or an output file could not be written (full disk, no permission)."""

    exit_code = 4


class EngineError(MathleteError):
    """The inference engine was asked for something it cannot do."""

    exit_code = 5
