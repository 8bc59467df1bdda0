"""Masks of DICOM-SEG and RTSTRUCT on the grid of a volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_3dct.dicom.contours import structure_planes
from nnunet_3dct.dicom.identifiers import Identifiers
from nnunet_3dct.dicom.kinds import SEGMENTATION
from nnunet_3dct.dicom.planes import MaskPlanes, on_planes_of, sample
from nnunet_3dct.dicom.segments import segment_planes
from nnunet_3dct.dicom.series import Series
from nnunet_3dct.dicom.tags import NotDicomError, read_whole
from nnunet_3dct.dicom.volume import DicomVolume
from nnunet_3dct.errors import ImageError


@dataclass(frozen=True)
class Reference:
    """Masks that were drawn on a series.

    Attributes:
        masks: name -> mask (Z, Y, X), bool, on the grid of the image. A name that comes twice is one mask.
        repairs: what was changed on the way, one text each.
    """

    masks: dict[str, np.ndarray]
    repairs: list[str]


def read_segmentation(path: Path, volume: DicomVolume) -> dict[str, np.ndarray]:
    """Masks of a DICOM-SEG by name of the segment; see :func:`read_masks`."""
    return _read(Path(path), volume, segment_planes, "segmentation", "DICOM-SEG").masks


def read_rtstruct(path: Path, volume: DicomVolume) -> dict[str, np.ndarray]:
    """Masks of an RTSTRUCT by name of the region; see :func:`read_masks`."""
    return _read(Path(path), volume, structure_planes, "structures", "RTSTRUCT").masks


def read_masks(masks: Series, volume: DicomVolume, case: str | None = None) -> Reference:
    """Masks of a file of a scan.

    Frames and contours are placed by their own positions, so that those of another order, orientation or size fit too.
    Where they do not lie on the voxels, the nearest pixel counts, and the repair is named.

    Args:
        masks: one of :attr:`~nnunet_3dct.dicom.series.SeriesScan.masks`.
        volume: of the series on which they were drawn.
        case: name for messages; that of ``masks`` by default.

    Raises:
        ImageError: the file is damaged or of another kind, holds no mask, or a mask lies outside of the image.
    """
    if masks.kind == SEGMENTATION:
        return _read(masks.files[0], volume, segment_planes, case or masks.name, "DICOM-SEG")
    return _read(masks.files[0], volume, structure_planes, case or masks.name, "RTSTRUCT")


def _read(
    path: Path,
    volume: DicomVolume,
    planes: Callable[..., tuple[dict[str, MaskPlanes], list[str]]],
    case: str,
    kind: str,
) -> Reference:
    identifiers = Identifiers()
    try:
        dataset = read_whole(path)
        identifiers.note(dataset)
        found, repairs = planes(dataset, volume.stack, case)
    except (NotDicomError, AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ImageError(
            f"{case}: expected {kind}, found a file that is damaged or something else ({type(error).__name__}). Export "
            "it again."
        ) from None  # whose text may quote what names the patient
    masks: dict[str, np.ndarray] = {}
    resampled = []
    for label, mask in found.items():
        name = identifiers.hide(label)
        masks[name], exact = _on_volume(name, mask, volume, case)
        if not exact:
            resampled.append(name)
    if not masks:
        raise ImageError(f"{case}: expected masks in this {kind}, found none. Remove the file, or export it again.")
    if resampled:
        repairs.append(f"{len(resampled)} masks do not lie on the voxels of the image: resampled (nearest neighbour)")
    return Reference(masks, repairs)


def _on_volume(name: str, planes: MaskPlanes, volume: DicomVolume, case: str) -> tuple[np.ndarray, bool]:
    if not planes.masks.any():
        return np.zeros(volume.image.GetSize()[::-1], bool), True
    mask, exact = sample(on_planes_of(planes, volume.stack), volume.image)
    if not mask.any():
        raise ImageError(
            f"{case}: expected a mask of {name!r} in the image, found all of it outside. Give the series on which it "
            "was drawn."
        )
    return mask, exact
