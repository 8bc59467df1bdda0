"""Pixels of slices in HU, decoded by GDCM, with the slope and intercept of each slice."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, MultiFrameGrayscaleWordSecondaryCaptureImageStorage, generate_uid

from nnunet_3dct.dicom.slices import Slice
from nnunet_3dct.dicom.tags import NotDicomError, quiet, read_whole
from nnunet_3dct.errors import ImageError

_PIXEL_TAGS = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "NumberOfFrames", "PixelData",
)  # fmt: skip
_INT16 = np.iinfo(np.int16)


class PixelReader:
    """Reads the slices of a series; holds the file that was decoded last, since its next frame is likely to follow."""

    def __init__(self, case: str) -> None:
        self._case = case
        self._file: Path | None = None
        self._stored = np.zeros((0, 0, 0))

    def read(self, item: Slice) -> np.ndarray:
        """HU (Y, X), int16 where all values are whole and fit, else float32.

        Raises:
            ImageError: GDCM cannot decode the slice, or it is of another size than its tags say.
        """
        values = self._frame(item) if item.frame is not None else self._whole(item)
        if values.shape != item.size[::-1]:
            raise ImageError(
                f"{self._case}: expected {item.size[0]} x {item.size[1]} pixels in instance {item.number}, found "
                f"{values.shape[::-1]}. Export the series again."
            )
        return _narrowed(values)

    def _whole(self, item: Slice) -> np.ndarray:
        try:
            values: np.ndarray = _decoded(item.file)[0]
            return values
        except RuntimeError:
            # GDCM reads no file without preamble or transfer syntax; pydicom makes sense of many
            slope, intercept = item.rescale or (1.0, 0.0)
            return _rescaled(self._frames(item)[0], slope, intercept)

    def _frame(self, item: Slice) -> np.ndarray:
        """GDCM takes the slope of the first frame for all of them, so the stored values are rescaled here."""
        frames = self._frames(item)
        if item.frame is None or item.frame >= len(frames):
            raise self._undecodable(item)
        slope, intercept = item.rescale or (1.0, 0.0)
        return _rescaled(frames[item.frame], slope, intercept)

    def _frames(self, item: Slice) -> np.ndarray:
        if self._file != item.file:
            try:
                self._stored = stored_frames(item.file)
            except (RuntimeError, NotDicomError, AttributeError, ValueError, KeyError) as error:
                raise self._undecodable(item) from error
            self._file = item.file
        return self._stored

    def _undecodable(self, item: Slice) -> ImageError:
        return ImageError(
            f"{self._case}: the pixels of instance {item.number} cannot be decoded: the file is damaged, or compressed "
            "in a way that GDCM does not know. Export the series again, uncompressed."
        )


def stored_frames(path: Path) -> np.ndarray:
    """Stored values (frames, Y, X) of a file, without slope and intercept; see :func:`stored_values`.

    Raises:
        NotDicomError: the file is damaged.
        RuntimeError: GDCM cannot decode the pixels.
    """
    return stored_values(read_whole(path))


def stored_values(whole: Dataset) -> np.ndarray:
    """Stored values (frames, Y, X), without slope and intercept.

    Single bits are unpacked by pydicom, since GDCM reads none. It decodes everything else, from a copy that holds the
    pixels alone.

    Raises:
        RuntimeError: GDCM cannot decode the pixels.
    """
    with quiet():
        if whole.BitsAllocated == 1:
            bits: np.ndarray = whole.pixel_array
            return bits if bits.ndim == 3 else bits[None]
        bare = _pixels_alone(whole)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "pixels.dcm"
            pydicom.dcmwrite(copy, bare, enforce_file_format=True)
            return _decoded(copy)


def _pixels_alone(whole: Dataset) -> Dataset:
    bare = Dataset()
    for keyword in _PIXEL_TAGS:
        if keyword in whole:
            bare[keyword] = whole[keyword]
    meta = getattr(whole, "file_meta", None)
    syntax = None if meta is None else meta.get("TransferSyntaxUID")
    bare.SOPClassUID, bare.SOPInstanceUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage, generate_uid()
    bare.Modality = "OT"
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = syntax or ImplicitVRLittleEndian
    bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID
    bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID
    return bare


def _decoded(path: Path) -> np.ndarray:
    """What GDCM reads, (Z, Y, X)."""
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    warnings = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # they quote paths and values
    try:
        values: np.ndarray = SimpleITK.GetArrayFromImage(reader.Execute())
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(warnings)
    return values if values.ndim == 3 else values[None]


def _rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    values: np.ndarray = stored.astype(np.float64) * slope + intercept
    return values


def _narrowed(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.int16:
        return values
    fits = values.size == 0 or (values.min() >= _INT16.min and values.max() <= _INT16.max)
    if fits and (np.issubdtype(values.dtype, np.integer) or (values == np.round(values)).all()):
        return values.astype(np.int16)
    return values.astype(np.float32)
