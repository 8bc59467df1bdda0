"""All DICOM results of one case, which refer to each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path

import pydicom
import SimpleITK

from nnunet_3dct.dicom.algorithm import Algorithm
from nnunet_3dct.dicom.findings import segments_of
from nnunet_3dct.dicom.report import ClassResult, Numbers, write_report
from nnunet_3dct.dicom.segmentation import write_segmentation
from nnunet_3dct.dicom.series import Series, find_series
from nnunet_3dct.dicom.source import read_source
from nnunet_3dct.dicom.structures import write_structures
from nnunet_3dct.dicom.tags import quiet
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.dicom_files import REPORT, SEGMENTATION, STRUCTURES, dicom_result_path
from nnunet_3dct.formats.label_codes import LabelCode

# tags without which a segmentation, a report or a structure set breaks off
_LAST = ("PixelData", "ContentSequence", "ApprovalStatus")


def write_results(
    folder: Path,
    case: str,
    kinds: Collection[str],
    files: Sequence[Path],
    labels: SimpleITK.Image,
    names: Mapping[str, int | Sequence[int]],
    *,
    codes: Mapping[str, LabelCode] | None = None,
    algorithm: Algorithm | None = None,
    result: ClassResult | None = None,
    numbers: Mapping[str, Numbers] | None = None,
) -> list[str]:
    """Write results into ``folder`` under the names of :mod:`nnunet_3dct.formats.dicom_files`.

    Where no label has a voxel there is neither a segmentation nor a structure set, which may not be empty; the report
    then says that each volume is 0.

    Args:
        folder: that exists.
        case: for the names of the files.
        kinds: of results that are wanted.
        files: of the series.
        labels: label map on the grid of its image, in any orientation.
        names: label -> value or values, as ``labels`` in dataset.json.
        codes: label -> code.
        algorithm: that found the labels.
        result: the class.
        numbers: label -> what was measured of it beside its volume.

    Returns:
        The kinds that were left out, since no voxel has a label.

    Raises:
        ImageError: the series cannot be read, or the labels do not lie on it.
        OutputError: a file cannot be written.
    """
    source, algorithm = read_source(files), algorithm or Algorithm()
    segments = segments_of(labels, names, codes)
    empty = all(segment.is_empty for segment in segments)
    segmentation = None
    if SEGMENTATION in kinds and not empty:
        path = dicom_result_path(folder, case, SEGMENTATION)
        segmentation = write_segmentation(path, source, labels, segments, algorithm)
    if REPORT in kinds:
        path = dicom_result_path(folder, case, REPORT)
        write_report(path, source, segments, result, algorithm, segmentation, numbers)
    if STRUCTURES in kinds and not empty:
        write_structures(dicom_result_path(folder, case, STRUCTURES), source, labels, segments, algorithm)
    return [kind for kind in (SEGMENTATION, STRUCTURES) if kind in kinds and empty]


def is_whole_result(path: Path) -> bool:
    """Whether a file holds one of our results, whole: pydicom writes what it reads in it as the same bytes again."""
    try:
        content, again = path.read_bytes(), BytesIO()
        with quiet():
            result = pydicom.dcmread(BytesIO(content))
            result.save_as(again, enforce_file_format=True)
    except Exception:  # pydicom raises whatever the damaged bytes lead to
        return False
    return again.getvalue() == content and any(keyword in result for keyword in _LAST)


def write_dicom_seg(
    labels: SimpleITK.Image | str | PathLike[str],
    series: str | PathLike[str] | Sequence[str | PathLike[str]],
    path: str | PathLike[str],
    names: Mapping[str, int | Sequence[int]],
    *,
    codes: Mapping[str, LabelCode] | None = None,
    algorithm: Algorithm | None = None,
) -> None:
    """Write a label map as a DICOM Segmentation that refers to the series that its image was made from.

    The label map may have any orientation, and may come from anywhere, such as :meth:`Prediction.image`.

    Args:
        labels: an image or a file of one.
        series: a folder, ZIP archive or multi-frame file that holds one series of images, or its files.
        path: of the new file; its folder has to exist.
        names: label -> value or values, as ``labels`` in dataset.json.
        codes: label -> code, for labels whose name the table of :mod:`nnunet_3dct.dicom.codes` does not know.
        algorithm: that made the labels.

    Raises:
        ImageError: there is no series or more than one, no voxel has a label, or the labels do not lie on the series.
        OutputError: the file cannot be written.

    Examples:
        >>> import nnunet_3dct
        >>> predictor = nnunet_3dct.Predictor(model, device="cpu", backend="torch", tta="none")
        >>> found = predictor(series)
        >>> names = {"background": 0, "organ": 1, "lesion": 2}
        >>> nnunet_3dct.write_dicom_seg(found.image(), series, tmp / "case_seg.dcm", names)
    """
    image = labels if isinstance(labels, SimpleITK.Image) else SimpleITK.ReadImage(str(labels))
    if isinstance(series, str | PathLike):
        one = _one_series(Path(series))
        source = read_source(one.files)
    else:
        source = read_source([Path(file) for file in series])
    write_segmentation(Path(path), source, image, segments_of(image, names, codes), algorithm or Algorithm())


def _one_series(source: Path) -> Series:
    """The only series of a source; as long as it is held, so are the files of an archive."""
    found = find_series(source).series
    if len(found) != 1:
        raise ImageError(f"{source}: expected one series of images, found {len(found)}. Give the folder of one.")
    return found[0]
