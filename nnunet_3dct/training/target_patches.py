"""Patches that are centred on the target, drawn by nnU-Net's own data loader.

That loader centres a share of the patches on a voxel of one of the case's foreground labels, which it takes from the
case's ``class_locations``. A larger share, and for part of it only the locations of the target, is all that is needed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.upstream import LabelManager

Key = int | tuple[int, ...]


@dataclass(frozen=True)
class Oversampling:
    """Shares of the patches that are centred.

    Attributes:
        target: on the target.
        others: of the rest, on any foreground label, as nnU-Net does it.
    """

    target: float
    others: float

    @property
    def forced(self) -> float:
        """Share of the patches that are centred on something: nnU-Net's ``oversample_foreground_percent``."""
        return self.target + (1 - self.target) * self.others

    @property
    def target_of_forced(self) -> float:
        """Share of those that are centred on the target."""
        return self.target / self.forced if self.forced else 0.0


def location_keys(target: TargetLabels, label_manager: LabelManager) -> set[Key]:
    """Keys of the target's labels, or regions, in the ``class_locations`` of preprocessed cases."""
    if not target.has_regions:
        return set(target.labels)
    regions = [label_manager.foreground_regions[channel] for channel in target.channels]
    return {tuple(int(v) for v in region) if isinstance(region, tuple | list) else int(region) for region in regions}


class TargetPatches:
    """A dataset for nnU-Net's data loader that lets it centre patches on the target.

    A case of unknown class, or without target, is left as it is: its centred patches show any foreground.

    Args:
        dataset: nnU-Net's, with ``identifiers`` and ``load_case``.
        cases: whose class is known.
        keys: of the target in ``class_locations``.
        shares: see :class:`Oversampling`.
    """

    def __init__(self, dataset: Any, cases: Collection[str], keys: Collection[Key], shares: Oversampling) -> None:
        self.dataset = dataset
        self.identifiers = dataset.identifiers
        self.cases = frozenset(cases)
        self.keys = frozenset(keys)
        self.shares = shares

    def load_case(self, identifier: str) -> tuple[Any, ...]:
        """As nnU-Net's; in a random share of the calls the properties show no other foreground than the target."""
        *volumes, properties = self.dataset.load_case(identifier)
        if str(identifier) in self.cases and np.random.uniform() < self.shares.target_of_forced:
            locations = properties["class_locations"]
            if any(len(locations.get(key, ())) for key in self.keys):
                properties = {**properties, "class_locations": self._target_of(locations)}
        return *volumes, properties

    def _target_of(self, locations: dict[Key, Any]) -> dict[Key, Any]:
        # -1 is part of the key of all annotated voxels, where patches are drawn from if a label is to be ignored
        return {
            key: found if key in self.keys or (isinstance(key, tuple) and -1 in key) else []
            for key, found in locations.items()
        }
