"""In which way a case is unlike the training cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_3dct.errors import CheckpointError
from nnunet_3dct.formats.atomic import read_json
from nnunet_3dct.networks.case_layout import IMAGE_BLOCKS, IMAGE_CONTRAST, IMAGE_SHARPNESS
from nnunet_3dct.networks.heads.case import CaseHead

FINGERPRINT = "dataset_fingerprint.json"
TOLERANCE = 1.5  # factor beyond what was seen
FINE = ("strength of fine structure", "roughness")  # measurements of the image that blur lowers and noise raises
NOISY = "image noisier or sharper than the training images"
SWAPPED = "light and dark of the image swapped against the training images"


@dataclass(frozen=True)
class SeenSizes:
    """Spacing and extent of the training images, in the order of the network's axes.

    Attributes:
        spacing: lowest and highest in mm, each ``(3,)``.
        extent: lowest and highest in mm, each ``(3,)``, of the image without empty borders.
    """

    spacing: tuple[np.ndarray, np.ndarray]
    extent: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of_model(cls, folder: Path, transpose_forward: Sequence[int]) -> SeenSizes | None:
        """Read from nnU-Net's fingerprint of the dataset in a model folder; None where there is none.

        Raises:
            CheckpointError: it is damaged.
        """
        path = folder / FINGERPRINT
        if not path.is_file():
            return None
        content = read_json(path, "Fingerprint of the dataset", CheckpointError, "Copy the model again.")
        axes = list(transpose_forward)
        try:
            spacings = np.asarray(content["spacings"], float)[:, axes]
            shapes = np.asarray(content["shapes_after_crop"], float)[:, axes]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: expected spacings and shapes_after_crop of every case, found {type(error).__name__}: "
                f"{error}. Copy the model again."
            ) from error
        extents = spacings * shapes
        return cls((spacings.min(0), spacings.max(0)), (extents.min(0), extents.max(0)))

    def remarks(self, properties: Mapping[str, Any], transpose_forward: Sequence[int]) -> list[str]:
        """What is unusual about the size of an image; empty when nothing is.

        Args:
            properties: as preprocessing leaves them.
            transpose_forward: of the plans.
        """
        spacing = np.asarray([properties["spacing"][axis] for axis in transpose_forward], float)
        extent = spacing * np.asarray(properties["shape_after_cropping_and_before_resampling"], float)
        found = []
        for what, values, (low, high) in (("spacing", spacing, self.spacing), ("extent", extent, self.extent)):
            if bool((values < low / TOLERANCE).any() or (values > high * TOLERANCE).any()):
                found.append(f"{what} {_mm(values)} mm, training images {_mm(low)} to {_mm(high)} mm")
        return found


def unfamiliar_features(heads: Sequence[CaseHead], columns: Sequence[Tensor]) -> list[str]:
    """Whether the features of a case lie far from those of the training cases, by most folds, and which.

    Args:
        heads: one for each fold.
        columns: features of the case ``(width,)``, one for each fold.
    """
    ratios = [float(head.strangeness(row[None])[0]) for head, row in zip(heads, columns, strict=True)]
    if not ratios or float(np.median(ratios)) <= 1:
        return []
    said = [words for head, row in zip(heads, columns, strict=True) for words in _of_image(head, row)]
    agreed = [words for words in dict.fromkeys(said) if said.count(words) > len(heads) / 2]
    text = f"features unlike those of the training cases ({np.median(ratios):.1f} times the distance that is usual)"
    return [f"{text}: {', '.join(agreed)}" if agreed else text]


def _of_image(head: CaseHead, row: Tensor) -> list[str]:
    """What is unlike about the image, by each group of features of the image alone that lies far off."""
    columns = {block: list(head.layout.blocks[block]) for block in IMAGE_BLOCKS if block in head.layout.blocks}
    of_image = {column for numbers in columns.values() for column in numbers}
    found = []
    for known in head.known:
        used = torch.nonzero(known.spread > 0).flatten().tolist()
        row = row.to(known.center.device)
        if not of_image.issuperset(used) or float(known.distance(row[None])[0]) <= float(known.threshold):
            continue
        deviations = known.deviations(row[None])[0]
        farthest = max(columns, key=lambda block: float(deviations[columns[block]].square().mean()))
        if farthest == IMAGE_SHARPNESS:
            fine = [n for n in columns[farthest] if head.layout.names[n].startswith(FINE)]
            blurred = float(deviations[fine].mean()) < 0
            found.append("image more blurred than the training images" if blurred else NOISY)
        elif farthest == IMAGE_CONTRAST:
            tails = [n for n in columns[farthest] if head.layout.names[n].startswith("asymmetry")]
            usual = (known.center / known.spread.clamp_min(1e-6))[tails]
            swapped = float(((row.float() / known.spread.clamp_min(1e-6))[tails] * usual).sum()) < 0
            found.append(SWAPPED if swapped else "contrast of the image unlike that of the training images")
        else:
            found.append("intensities distributed unlike those of the training images")
    return list(dict.fromkeys(found))


def _mm(values: np.ndarray) -> str:
    return " x ".join(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values)
