"""The labels of a dataset as segments of one case: what they are, how large, and under which number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK

from nnunet_3dct.dicom.codes import Meaning, meanings
from nnunet_3dct.dicom.result_files import new_uid
from nnunet_3dct.formats.label_codes import LabelCode

# of the label names in dataset.json: nnU-Net's own, no structures
NOT_SEGMENTS = ("background", "ignore")
# told apart by most readers with impaired colour vision (Okabe and Ito)
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


@dataclass(frozen=True)
class Segment:
    """A label in one case.

    Attributes:
        name: of the label.
        values: of the voxels that belong to it; several where dataset.json names a region.
        meaning: its codes.
        volume: in ml, on the grid of the segmentation.
        tracking_uid: the same in all results of the case.
        colour: red, green, blue, 0 to 255.
    """

    name: str
    values: tuple[int, ...]
    meaning: Meaning
    volume: float
    tracking_uid: str
    colour: tuple[int, int, int]

    @property
    def is_empty(self) -> bool:
        """Whether no voxel has the label."""
        return self.volume == 0

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """Where the label is, as booleans."""
        return np.isin(labels, self.values)


def segments_of(
    labels: SimpleITK.Image, names: Mapping[str, int | Sequence[int]], codes: Mapping[str, LabelCode] | None = None
) -> list[Segment]:
    """Segments of a case in the order of dataset.json, empty ones too.

    Args:
        labels: label map of the case.
        names: label or region -> value or values, as ``labels`` in dataset.json.
        codes: label -> code, see :func:`~nnunet_3dct.formats.label_codes.read_label_codes`.
    """
    array = SimpleITK.GetArrayViewFromImage(labels)
    values, counts = np.unique(array, return_counts=True)
    voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    voxel = float(np.prod(labels.GetSpacing())) / 1000
    members = structures(names)
    found = meanings(members, codes)
    return [
        Segment(
            name,
            own,
            found[name],
            voxel * sum(voxels.get(value, 0) for value in own),
            new_uid(),
            COLOURS[number % len(COLOURS)],
        )
        for number, (name, own) in enumerate(members.items())
    ]


def structures(names: Mapping[str, int | Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Labels that are structures, with the values of their voxels."""
    return {
        name: tuple(int(v) for v in ([value] if isinstance(value, int | float | str) else value))
        for name, value in names.items()
        if name.lower() not in NOT_SEGMENTS
    }
