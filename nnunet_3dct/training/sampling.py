"""Which cases a training epoch draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnunet_3dct.class_labels import UNKNOWN


def balanced_identifiers(cases: Sequence[str], classes: Mapping[str, int], repeats: int = 20) -> list[str]:
    """Repeat identifiers so that drawing uniformly from the result sees each class equally often.

    Cases of unknown class keep the share that they have in ``cases``.

    Args:
        cases: identifiers of the training fold.
        classes: case -> class, -1 for unknown.
        repeats: how often a case of the largest class stands in the result; higher is finer.
    """
    groups: dict[int, list[str]] = {}
    for case in cases:
        groups.setdefault(classes.get(case, UNKNOWN), []).append(case)
    known = {k: group for k, group in groups.items() if k != UNKNOWN}
    if not known:
        return list(cases)
    length = repeats * max(len(group) for group in known.values())
    drawn = [case for group in known.values() for case in np.resize(group, length).tolist()]
    unknown = groups.get(UNKNOWN, [])
    if unknown:
        share = len(unknown) / (len(cases) - len(unknown))
        drawn += np.resize(unknown, round(share * len(drawn))).tolist()
    return drawn
