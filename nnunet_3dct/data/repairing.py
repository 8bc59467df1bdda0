"""Repairs made and undone, on the stored content of NIfTI files; :mod:`nnunet_3dct.data.repairs` finds them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnunet_3dct.data.mask_values import StoredLabels, stored_labels
from nnunet_3dct.data.repairs import DIRECTION, GRID, INTEGERS, ONE_VOLUME, VALUES, Repair, orthonormal
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.conversion import UndoRecord, pack, unpack
from nnunet_3dct.formats.nifti_content import NiftiContent


@dataclass(frozen=True)
class Repaired:
    """Result of :func:`repair`.

    Attributes:
        content: to write.
        undo: brings the original back.
        voxels: stored bytes of the original (zlib) where ``undo`` needs them as a file, else None.
    """

    content: NiftiContent
    undo: UndoRecord
    voxels: bytes | None


def repair(
    content: NiftiContent,
    repairs: Sequence[Repair],
    image: NiftiContent | None,
    name: str,
    label_map: Mapping[int, int] | None = None,
) -> Repaired:
    """Make repairs.

    Args:
        content: of the file.
        repairs: that :func:`~nnunet_3dct.data.repairs.find_repairs` found in it.
        image: the case's image, repaired, whose grid a mask takes; None where it takes none.
        name: of the file, for messages.
        label_map: labels of a mask that become others.

    Raises:
        ImageError: see :func:`~nnunet_3dct.data.repairs.stored_labels`.
    """
    kinds = {repair.kind for repair in repairs}
    result, table = content, None
    if ONE_VOLUME in kinds:
        result = result.with_axes(3)
    if DIRECTION in kinds:
        result = result.with_affine(orthonormal(result.affine))
    if GRID in kinds and image is not None:
        result = result.with_grid_of(image)
    if kinds & {VALUES, INTEGERS} or label_map:
        table = _mapped(stored_labels(content, name), label_map or {})
        result = result.with_voxels(_as_labels(result.voxels, table))
    undo, voxels = _undo_record(content, result, table)
    return Repaired(result, undo, voxels)


def undo_repairs_of(content: NiftiContent, undo: UndoRecord, voxels: bytes | None, name: str) -> NiftiContent:
    """The content before its repairs, bit by bit.

    Args:
        content: of the repaired file.
        undo: of its record.
        voxels: content of the file that ``undo`` names, None where it names none.
        name: of the file, for messages.

    Raises:
        ImageError: what comes out is not what was repaired, so that the record or the file has been changed.
    """
    dtype, shape = np.dtype(undo["dtype"]), tuple(undo["shape"])
    if voxels is not None:
        stored = np.frombuffer(zlib.decompress(voxels), dtype).reshape(shape, order="F")
    elif "values" in undo:
        stored = _as_stored(content.voxels, undo["values"], dtype).reshape(shape, order="F")
    else:
        stored = content.voxels.reshape(shape, order="F")
    original = NiftiContent(unpack(undo["start"]), stored)
    if original.digest() != undo["sha256"]:
        raise ImageError(
            f"{name}: its repairs cannot be undone: expected content with the hash {undo['sha256'][:12]}, found "
            "another; the file has been changed since. Take it from the source again."
        )
    return original


def label_type(highest: int) -> type[np.unsignedinteger]:
    """The smallest type that holds labels up to ``highest``."""
    return np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16


def _mapped(table: StoredLabels, label_map: Mapping[int, int]) -> StoredLabels:
    labels = np.array([label_map.get(int(label), int(label)) for label in table.labels], np.int64)
    return replace(table, labels=labels)


def _as_labels(stored: np.ndarray, table: StoredLabels) -> np.ndarray:
    dtype = label_type(int(table.labels.max()))
    where = np.searchsorted(np.sort(table.stored), stored)
    labels: np.ndarray = table.labels[np.argsort(table.stored)].astype(dtype)[where]
    return np.asfortranarray(labels)


def _as_stored(labels: np.ndarray, values: dict[str, float], dtype: np.dtype) -> np.ndarray:
    lookup = np.zeros(max(map(int, values)) + 1, dtype)
    for label, value in values.items():
        lookup[int(label)] = value
    if int(labels.max()) >= len(lookup):
        return np.zeros(labels.shape, dtype)  # another file; its hash will not fit
    return lookup[labels]


def _undo_record(
    before: NiftiContent, after: NiftiContent, table: StoredLabels | None
) -> tuple[UndoRecord, bytes | None]:
    record: UndoRecord = {
        "start": pack(before.start),
        "sha256": before.digest(),
        "dtype": before.voxels.dtype.str,
        "shape": list(before.voxels.shape),
    }
    if table is None:
        return record, None
    if len(set(table.labels.tolist())) == len(table.labels):
        values = {str(label): value.item() for label, value in zip(table.labels, table.stored, strict=True)}
        with_values: UndoRecord = {**record, "values": values}
        try:
            undo_repairs_of(after, with_values, None, "")
        except ImageError:  # such as -0.0, which equals 0
            pass
        else:
            return with_values, None
    return record, zlib.compress(before.voxels.tobytes(order="F"), 6)
