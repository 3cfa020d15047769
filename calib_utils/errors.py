"""Errors: what this package raises when something outside of it is wrong. Messages name the value and the remedy.

Wrong arguments of a function stay plain ValueErrors.
"""

from __future__ import annotations


class CalibError(Exception):
    """The base class: whatever the command line reports as a message instead of a traceback."""


class ConfigError(CalibError, ValueError):
    """A parameter is unknown, missing, of the wrong type or out of range; the message names it."""


class DataError(CalibError, ValueError):
    """A row, a field or a file is not what the schema says; the message names it."""


class WriteError(CalibError, OSError):
    """A file or folder cannot be written; the message names it, the reason and the remedy."""


class RecordError(CalibError, RuntimeError):
    """A record file cannot be read or written; the message names the file and the remedy."""


class ModelError(CalibError, RuntimeError):
    """A model cannot be found, verified or used; the message names the remedy."""


class SamplingError(CalibError, RuntimeError):
    """The model or the prompt cannot be sampled from; the message names the value and the remedy."""


class TrainingError(CalibError, RuntimeError):
    """A stage cannot be trained, or its training went wrong; the message names the value and the remedy."""


class RunError(CalibError, RuntimeError):
    """A notebook failed; the message names the cell's error and the executed copy."""
