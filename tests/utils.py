"""Makers of image files and raw datasets, sound ones and broken ones.

Arrays are indexed (Z, Y, X); spacing (mm), origin (mm) and direction follow SimpleITK, (x, y, z).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK


def ct_array(shape: Sequence[int] = (6, 8, 10), seed: int = 0) -> np.ndarray:
    """Random intensities in HU, int16."""
    return np.random.default_rng(seed).integers(-200, 300, size=tuple(shape)).astype(np.int16)


def label_array(shape: Sequence[int] = (6, 8, 10)) -> np.ndarray:
    """An organ (1) with a lesion (2) in background, uint8."""
    labels = np.zeros(tuple(shape), np.uint8)
    labels[tuple(slice(1, n - 1) for n in shape)] = 1
    labels[tuple(slice(n // 2, n // 2 + 1) for n in shape)] = 2
    return labels


def write_volume(
    path: Path,
    array: np.ndarray,
    spacing: Sequence[float] | None = None,
    origin: Sequence[float] | None = None,
    direction: Sequence[float] | None = None,
) -> Path:
    """Write ``array`` in the format that the ending of ``path`` names; returns ``path``."""
    image = SimpleITK.GetImageFromArray(array)
    if spacing is not None:
        image.SetSpacing([float(value) for value in spacing])
    if origin is not None:
        image.SetOrigin([float(value) for value in origin])
    if direction is not None:
        image.SetDirection([float(value) for value in direction])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), path.name.endswith(".gz"))
    return path


def write_sheared_volume(path: Path, array: np.ndarray) -> Path:
    """A NIfTI file whose axes are not at right angles; SimpleITK refuses it."""
    affine = np.eye(4)
    affine[0, 1] = 0.3
    nib.save(nib.Nifti1Image(array.transpose(), affine), path)
    return path


def tilt(path: Path, degrees: float = 12) -> Path:
    """Shift the slices of a NIfTI file along y in its header, as a tilted gantry does; SimpleITK refuses it."""
    old = nib.load(path)
    affine = old.affine.copy()
    affine[1, 2] = affine[2, 2] * np.tan(np.deg2rad(degrees))
    new = nib.Nifti1Image(np.asarray(old.dataobj), affine)
    new.set_sform(affine, 1)
    new.header["qform_code"] = 0
    nib.save(new, path)
    return path


def edit_nifti_header(path: Path, **fields: object) -> Path:
    """Overwrite fields of a NIfTI-1 header as they are given, even where nibabel would correct them.

    ``pixdim`` gives the voxel sizes (x, y, z) alone.
    """
    packed = path.read_bytes()[:2] == b"\x1f\x8b"
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        if name == "pixdim":
            header["pixdim"][1:4] = value
        else:
            header[name] = value
    content = header.binaryblock + content[348:]
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def unpack(path: Path) -> Path:
    """Decompress a ``.nii.gz`` and leave its name, as some servers and browsers do."""
    path.write_bytes(gzip.decompress(path.read_bytes()))
    return path


def scale_labels(path: Path, slope: float, dtype: type = np.int16) -> Path:
    """Store a label volume as integers with a scaling factor, so that labels read as not quite whole numbers."""
    old = nib.load(path)
    stored = np.round(np.asarray(old.dataobj) / slope).astype(dtype)
    new = nib.Nifti1Image(stored, old.affine, dtype=dtype)
    new.header.set_slope_inter(slope, 0)
    nib.save(new, path)
    return path


def write_volume_without_voxels(path: Path) -> Path:
    """A NIfTI file with a valid header and an axis of length 0."""
    nib.save(nib.Nifti1Image(np.zeros((0, 4, 4), np.int16), np.eye(4)), path)
    return path


def empty(path: Path) -> Path:
    """Leave 0 bytes of the file, as a full disk does."""
    path.write_bytes(b"")
    return path


def truncate(path: Path, fraction: float) -> Path:
    """Keep the first ``fraction`` of the file's bytes, as an interrupted transfer does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


def flip_byte(path: Path, fraction: float = 0.5) -> Path:
    """Invert the one byte at ``fraction`` of the file; its length stays."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * fraction)] ^= 0xFF
    path.write_bytes(bytes(content))
    return path


def with_nan(array: np.ndarray, voxels: int = 1) -> np.ndarray:
    """A float32 copy whose first ``voxels`` voxels are NaN."""
    copy = array.astype(np.float32)
    copy.reshape(-1)[:voxels] = np.nan
    return copy


def write_raw_dataset(
    folder: Path,
    *,
    classes: Sequence[int] = (0, 1, 0, 1),
    channels: int = 1,
    validation: int = 0,
    ending: str = ".nii.gz",
    shape: Sequence[int] = (6, 8, 10),
) -> Path:
    """A sound dataset in nnU-Net's raw layout: labels 0, 1, 2 and classification.json; returns ``folder``.

    Training cases are ``case_000`` and so on, one for each entry of ``classes``; ``validation`` more cases
    follow in imagesVal and labelsVal, with class 0.
    """
    cases = [f"case_{n:03d}" for n in range(len(classes) + validation)]
    for n, case in enumerate(cases):
        part = "Tr" if n < len(classes) else "Val"
        for channel in range(channels):
            image = ct_array(shape, seed=10 * n + channel)
            write_volume(folder / f"images{part}" / f"{case}_{channel:04d}{ending}", image)
        write_volume(folder / f"labels{part}" / f"{case}{ending}", label_array(shape))
    description = {
        "channel_names": {str(channel): "CT" for channel in range(channels)},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": len(classes),
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    by_case = dict(zip(cases, [*classes, *[0] * validation], strict=True))
    (folder / "classification.json").write_text(json.dumps(by_case))
    return folder


def write_class_table(
    path: Path,
    rows: Sequence[Sequence[object]],
    *,
    header: Sequence[str] = ("Names", "Subtype"),
    separator: str = ",",
    newline: str = "\n",
    encoding: str = "utf-8",
) -> Path:
    """Write a table of class labels as a spreadsheet or a script would; returns ``path``."""
    lines = [separator.join(map(str, cells)) for cells in [header, *rows]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((newline.join(lines) + newline).encode(encoding))
    return path


def write_class_labels(folder: Path, classes: Mapping[str, object]) -> Path:
    """Write ``classification.json`` into ``folder``; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classification.json").write_text(json.dumps(classes))
    return folder / "classification.json"
