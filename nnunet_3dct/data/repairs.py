"""What is wrong with an image or its mask and can be put right without loss.

The conversion and the check of a dataset both ask here, so that they name the same things;
:mod:`nnunet_3dct.data.repairing` does what is found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from nnunet_3dct.data.mask_values import needs_rounding, shown_value, stored_labels
from nnunet_3dct.errors import ImageError, listing
from nnunet_3dct.formats.file_kinds import is_gzip
from nnunet_3dct.formats.geometry import NIFTI, Geometry, attempt, geometry_differences, image_geometry, read_geometry
from nnunet_3dct.formats.image_readers import Reader, reads_with_nibabel
from nnunet_3dct.formats.nifti_content import content_from_image, read_content
from nnunet_3dct.formats.nifti_header import read_nifti_header

DIRECTION_TOLERANCE = 1e-3
GRID_ROUNDING = 1e-6  # what ITK's filters let pass: of a voxel's edge, and of direction cosines

ONE_VOLUME, DIRECTION, GRID, VALUES, INTEGERS, COMPRESSION = KINDS = (
    "one_volume", "direction", "grid", "values", "integers", "compression",
)  # fmt: skip
_HEADLINES = {
    ONE_VOLUME: "a fourth axis with a single volume; it becomes three axes",
    DIRECTION: "axes that are not quite at right angles, which ITK refuses; the nearest right angles are taken",
    GRID: "a mask beside its image by rounding in the header; it takes the image's grid",
    VALUES: "mask values that are not quite whole; each becomes the label that is within 0.01",
    INTEGERS: "a mask stored as floating point or with a scaling factor; it becomes integers",
    COMPRESSION: "a file named .nii.gz that is not compressed; it is compressed",
}
# what a conversion does beside repairs
SPLIT, FORMAT, MAPPED, DICOM = "split", "format", "mapped", "dicom"
_CHANGES = {
    SPLIT: "several volumes in one file; one file a channel is written, by nnU-Net's own converter",
    FORMAT: "another format or no compression; .nii.gz is written",
    MAPPED: "labels that become others, as asked for",
    DICOM: "a DICOM series that is not quite regular",
}


@dataclass(frozen=True)
class Repair:
    """One thing that can be put right in one file.

    Attributes:
        kind: one of :data:`KINDS`.
        file: that needs it.
        count: voxels that change their value; 1 where the header alone changes.
        found: what was found, for a message.
    """

    kind: str
    file: Path
    count: int
    found: str

    def __str__(self) -> str:
        return f"{self.file.name}: {self.found}"


def find_repairs(label_path: Path | None, image_path: Path | None, *, reader: Reader | None = None) -> list[Repair]:
    """Everything in the image and the label volume of a case that can be put right.

    Args:
        label_path: the mask; None for an image alone, such as a second channel.
        image_path: None for a mask alone.
        reader: that nnU-Net uses for them, by name or class; None for one that uses ITK.

    Raises:
        ImageError: something is wrong that cannot be put right: a direction further than 1e-3 from orthonormal, a mask
            value further than 0.01 from a label, several volumes in one file, a mask that does not fit its image.
    """
    repairs: list[Repair] = []
    image_grid = None
    if image_path is not None:
        repairs += _header_repairs(image_path, reader)
        image_grid = repaired_grid(image_path, reader)
    if label_path is not None:
        repairs += _header_repairs(label_path, reader)
        if image_grid is not None:
            repairs += _grid_repairs(label_path, repaired_grid(label_path, reader), image_grid)
        repairs += _value_repairs(label_path)
    return repairs


def summarize_repairs(repairs: Mapping[str, Sequence[Repair]], remedy: str = "") -> list[str]:
    """One text for each kind of repair: how many files need it, an example, and what repairs them.

    Args:
        repairs: case -> its repairs.
        remedy: last sentence, such as the command that does it.

    Examples:
        >>> found = {"case_0": [Repair(VALUES, Path("case_0.nii.gz"), 9, "1.0000153 in 9 voxels")]}
        >>> summarize_repairs(found, "Do it.")
        ['1 file: mask values that are not quite whole; each becomes the label that is within 0.01: case_0.nii.gz: \
1.0000153 in 9 voxels. Do it.']
    """
    lines = []
    for kind in KINDS:
        found = [repair for case in sorted(repairs) for repair in repairs[case] if repair.kind == kind]
        if found:
            files = f"{len(found)} file{'s' * (len(found) != 1)}"
            example = listing([str(repair) for repair in found], 2)
            lines.append(f"{files}: {_HEADLINES[kind]}: {example}. {remedy}".rstrip())
    return lines


def headline(kind: str) -> str:
    """What a kind of repair, or of another change that a conversion makes, is about, and what is done."""
    return _HEADLINES.get(kind) or _CHANGES[kind]


def repaired_grid(path: Path, reader: Reader | None = None) -> Geometry:
    """Grid of a file after :data:`DIRECTION` has been repaired where it has to be."""
    if not reads_with_nibabel(reader) and _refused_by_itk(path):
        header = read_nifti_header(path)
        image = SimpleITK.Image([*header.shape[:3]], SimpleITK.sitkUInt8)
        flip = np.diag([-1.0, -1.0, 1.0])
        affine = flip @ orthonormal(header.affine)[:3]
        spacing = np.linalg.norm(affine[:, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(affine[:, 3].tolist())
        image.SetDirection((affine[:, :3] / spacing).ravel().tolist())
        return image_geometry(image)
    return read_geometry(path, reader=reader)


def departure(affine: np.ndarray) -> float:
    """How far the axes of an affine (4x4) are from right angles: the largest cosine between two of them."""
    with np.errstate(invalid="ignore", divide="ignore"):
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    largest = float(np.abs(axes.T @ axes - np.eye(3)).max())
    return largest if math.isfinite(largest) else math.inf


def orthonormal(affine: np.ndarray) -> np.ndarray:
    """The affine (4x4) with the nearest axes at right angles; voxel sizes and the first voxel's place stay."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / lengths)
    result = affine.copy()
    result[:3, :3] = (left @ right) * lengths
    return result


def _header_repairs(path: Path, reader: Reader | None) -> list[Repair]:
    repairs = []
    if path.name.lower().endswith(NIFTI):
        if path.name.lower().endswith(".gz") and not is_gzip(path):
            repairs.append(Repair(COMPRESSION, path, 1, "not compressed in spite of its name"))
        shape: Sequence[int] = read_nifti_header(path).shape
    else:
        information = SimpleITK.ImageFileReader()
        information.SetFileName(str(path))
        attempt(information.ReadImageInformation, path)
        shape = information.GetSize()
    if len(shape) > 3:
        volumes = math.prod(shape[3:])
        if volumes != 1:
            raise ImageError(
                f"{path}: expected one volume, found {volumes} in one file (shape {tuple(shape)}). Split it into one "
                "file a channel, named <case>_0000, <case>_0001, ..."
            )
        repairs.append(Repair(ONE_VOLUME, path, 1, f"shape {tuple(shape)}"))
    if not reads_with_nibabel(reader) and _refused_by_itk(path):
        away = departure(read_nifti_header(path).affine)
        if away > DIRECTION_TOLERANCE:
            raise ImageError(
                f"{path}: its axes are sheared: expected a direction matrix within {DIRECTION_TOLERANCE:g} of "
                f"orthonormal, found {away:.4g}, which is more than rounding (a tilted gantry?). Resample the image "
                "and its mask to a grid with right angles."
            )
        repairs.append(Repair(DIRECTION, path, 1, f"direction matrix {away:.2g} from orthonormal"))
    return repairs


def _refused_by_itk(path: Path) -> bool:
    if not path.name.lower().endswith(NIFTI) or departure(read_nifti_header(path).affine) < GRID_ROUNDING:
        return False
    information = SimpleITK.ImageFileReader()
    information.SetFileName(str(path))
    try:
        information.ReadImageInformation()
    except RuntimeError as error:
        return "orthonormal" in str(error).lower()
    return False


def _grid_repairs(label: Path, found: Geometry, expected: Geometry) -> list[Repair]:
    differences = geometry_differences(found, expected)
    if differences:
        raise ImageError(
            f"{label}: does not fit its image: {'; '.join(differences)}. Resample the mask to the image (nearest "
            "neighbour), or copy the image's header if only that is wrong."
        )
    edge = min(expected.spacing)
    parts = {
        "voxel size by {:.2g} mm": _largest(found.spacing, expected.spacing, edge),
        "origin by {:.2g} mm": _largest(found.origin, expected.origin, edge),
        "direction by {:.2g}": _largest(found.direction, expected.direction, 1.0),
    }
    off = [text.format(value) for text, value in parts.items() if value]
    return [Repair(GRID, label, 1, f"differs from its image in {', '.join(off)}")] if off else []


def _largest(found: Sequence[float], expected: Sequence[float], unit: float) -> float:
    """The largest difference, 0 where ITK's filters would not mind."""
    largest = max(abs(ours - theirs) for ours, theirs in zip(found, expected, strict=True))
    return largest if largest > GRID_ROUNDING * unit else 0.0


def _value_repairs(label: Path) -> list[Repair]:
    if label.name.lower().endswith(NIFTI):
        header = read_nifti_header(label)
        if header.dtype.kind != "f" and not header.scaled:
            return []
        content = read_content(label)
    else:
        content = content_from_image(label)
    if not needs_rounding(content):
        return []
    table = stored_labels(content, str(label))
    moved = table.values != table.labels
    repairs = []
    if moved.any():
        order = np.argsort(-table.counts[moved], kind="stable")[:3]
        shown = [
            f"{shown_value(value)} in {count} voxels"
            for value, count in zip(table.values[moved][order], table.counts[moved][order], strict=True)
        ]
        repairs.append(Repair(VALUES, label, int(table.counts[moved].sum()), listing(shown)))
    how = "floating point" if content.voxels.dtype.kind == "f" else f"scaled by {content.scaling[0]:.7g}"
    repairs.append(Repair(INTEGERS, label, int(table.counts.sum()), f"{content.voxels.dtype.name}, {how}"))
    return repairs
