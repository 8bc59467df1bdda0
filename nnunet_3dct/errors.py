"""One family of exceptions.

Every message says which case, file or variable is meant, what was expected, what was found and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class NNUNet3DCTError(Exception):
    """Base of all errors raised on purpose by this package."""


class SettingsError(NNUNet3DCTError, ValueError):
    """A variable, a command-line argument or an argument of a Python call holds a value that cannot be used."""


class ClassLabelsError(NNUNet3DCTError):
    """``classification.json`` (or the CSV) is missing, incomplete or holds values that are not classes."""


class CheckpointError(NNUNet3DCTError):
    """A checkpoint is missing, unreadable or belongs to another network."""


class ImageError(NNUNet3DCTError):
    """An image or label volume is missing, truncated, empty or does not fit its case."""


class TrainingError(NNUNet3DCTError):
    """Training cannot go on, for instance because gradients stay non-finite."""


class EvaluationError(NNUNet3DCTError):
    """Predictions and references cannot be compared."""


class OutputError(NNUNet3DCTError):
    """A result file cannot be written."""


def listing(items: Sequence[object], limit: int = 10) -> str:
    """Join ``items`` for a message and cut the list after ``limit`` entries, saying how many are left out."""
    shown = ", ".join(str(item) for item in items[:limit])
    rest = len(items) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown
