"""Which names of ``upstream.HOMES`` have a test; see ``test_table.py``."""

from __future__ import annotations

from collections.abc import Callable

TESTED: set[str] = set()


def covers(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark which names of upstream a test is about."""
    TESTED.update(names)
    return lambda test: test
