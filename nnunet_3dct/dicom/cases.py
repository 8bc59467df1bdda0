"""Cases of a DICOM source: one for each image series, with a name that identifies nobody."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK

from nnunet_3dct.dicom.series import Series, SeriesScan, counted, find_series
from nnunet_3dct.dicom.volume import DicomVolume, read_series
from nnunet_3dct.errors import ImageError, OutputError
from nnunet_3dct.formats.image_files import check_image_file


@dataclass(frozen=True)
class DicomCase:
    """One image series under the name of a case.

    Attributes:
        case: its name.
        series: its image.
        masks: files of DICOM-SEG and RTSTRUCT that were drawn on it.
    """

    case: str
    series: Series
    masks: tuple[Series, ...] = field(default=())

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of the image, sorted by position."""
        return self.series.files

    def read(self) -> DicomVolume:
        """The image; see :func:`~nnunet_3dct.dicom.volume.read_series`."""
        return read_series(self.series, self.case)

    def write_nifti(self, path: Path) -> DicomVolume:
        """Write the image as NIfTI, complete or not at all, and return what was read.

        Raises:
            ImageError: as :func:`~nnunet_3dct.dicom.volume.read_series`.
            OutputError: the file cannot be written.
        """
        volume = self.read()
        write_image(volume.image, Path(path))
        return volume


def dicom_cases(source: Path) -> list[DicomCase]:
    """Cases of a folder tree, a ZIP archive or a single file.

    Raises:
        ImageError: there is no image series; the message counts why files were left out.
    """
    scan = find_series(source)
    if not scan.series:
        reasons = f" ({counted(scan.left_out)})" if scan.left_out else ""
        raise ImageError(
            f"{source}: expected CT, MR or PET series, found none in {len(scan.left_out) + len(scan.masks)} files"
            f"{reasons}. Check the path."
        )
    return cases_of(scan)


def cases_of(scan: SeriesScan) -> list[DicomCase]:
    """Cases of a scan, in a stable order.

    They are named by their folders where each series lies in one of its own, all names differ and none holds an
    identifier or looks like one; else ``case_0001`` and so on, sorted by the keys of patient, study and series.
    """
    folders = [series.folder_name for series in scan.series]
    by_folder = all(folders) and max(Counter(name.lower() for name in folders).values(), default=0) == 1
    names = folders if by_folder else [f"case_{number:04d}" for number in range(1, len(folders) + 1)]
    cases = [
        DicomCase(name, series, tuple(scan.masks_of(series))) for name, series in zip(names, scan.series, strict=True)
    ]
    return sorted(cases, key=lambda item: item.case)


def write_image(image: SimpleITK.Image, path: Path) -> None:
    """Write an image or a label map, complete or not at all.

    Raises:
        OutputError: the file cannot be written, as on a full disk, which ITK does not notice by itself.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".nnunet_3dct_") as folder:
            temporary = Path(folder) / path.name
            SimpleITK.WriteImage(image, str(temporary), path.name.lower().endswith(".gz"))
            check_image_file(temporary)
            temporary.replace(path)
    except (RuntimeError, OSError, ImageError) as error:
        raise OutputError(f"{path} cannot be written: {str(error).strip().splitlines()[-1]}.") from error
