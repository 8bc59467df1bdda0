"""The images of a folder: files in nnU-Net's layout, or DICOM series, each of which is read as the NIfTI file of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import SimpleITK

from nnunet_3dct.dicom.cases import DicomCase, cases_of, dicom_cases
from nnunet_3dct.dicom.series import find_series, holds_dicom
from nnunet_3dct.errors import ImageError, SettingsError, listing
from nnunet_3dct.formats.image_folders import CaseImages, ImageFolder, list_images
from nnunet_3dct.inference.case_input import CaseInput, from_files
from nnunet_3dct.inference.model import TrainedModel
from nnunet_3dct.inference.options import FolderOptions
from nnunet_3dct.runtime import Message


@dataclass(frozen=True)
class Images:
    """Cases to predict, whatever their format.

    Attributes:
        folder: their names and files, and what was left out.
        series: case -> its DICOM series; empty for other images.
        repairs: case -> what was changed when its series was read, filled in while cases are read.
        set_aside: DICOM file -> what it is, where it is no slice of a volume, such as a localizer.
        shown: text as it may be shown and noted, without what identifies the patients of the series.
    """

    folder: ImageFolder
    series: Mapping[str, DicomCase] = field(default_factory=dict)
    repairs: dict[str, list[str]] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)
    shown: Callable[[str], str] = str

    def read(self, images: CaseImages, model: TrainedModel, on_message: Message) -> CaseInput:
        """The image of a case.

        Raises:
            ImageError: it cannot be read, see :func:`~nnunet_3dct.inference.case_input.from_files`.
        """
        if images.case not in self.series:
            return from_files(images.files, model, images.case)
        given, repairs = read_dicom(self.series[images.case], model)
        if repairs:
            self.repairs[images.case] = repairs
            on_message(f"{images.case}: {'; '.join(repairs)}.")
        return given


def find_images(source: Path, model: TrainedModel, options: FolderOptions) -> Images:
    """List the cases of a folder of images, or of a folder, ZIP archive or file of DICOM.

    Images with the ending of the model's training data go first; a folder without any is looked through for DICOM.

    Raises:
        ImageError: there are no images, see :func:`~nnunet_3dct.formats.image_folders.list_images` and
            :func:`~nnunet_3dct.dicom.series.find_series`.
        SettingsError: DICOM results are asked for and the images are no DICOM, or a model that takes several channels
            is given DICOM.
    """
    ending = str(model.dataset_json["file_ending"])
    if not is_dicom(source, ending):
        if options.dicom_results:
            name = next(name for name in ("dicom_seg", "dicom_sr", "rtstruct") if getattr(options, name))
            raise SettingsError(
                f"{name}: expected DICOM images, to which a DICOM result refers, found {source}, which holds none. "
                "Give the DICOM series, or leave it out."
            )
        return Images(list_images(source, ending))
    check_one_channel(model)
    scan = find_series(source)
    cases = cases_of(scan) if scan.series else dicom_cases(source)  # the latter says why there are none
    files = [CaseImages(case.case, case.files) for case in cases]
    left_out = {file: reason for file, reason in scan.left_out.items() if file in scan.unreadable}
    set_aside = {file: reason for file, reason in scan.left_out.items() if file not in left_out}
    return Images(
        ImageFolder(files, left_out),
        {case.case: case for case in cases},
        set_aside=set_aside,
        shown=scan.identifiers.hide,
    )


def is_dicom(source: Path, file_ending: str) -> bool:
    """Whether the images of ``source`` are DICOM rather than files with the ending of the model."""
    source = Path(source)
    if source.is_dir() and any(
        path.name.endswith(file_ending) and not path.name.startswith(".") for path in source.iterdir()
    ):
        return False
    return (source.is_dir() or source.is_file()) and holds_dicom(source)


def read_dicom(case: DicomCase, model: TrainedModel, *, with_geometry: bool = False) -> tuple[CaseInput, list[str]]:
    """Image of a series as the model's reader takes the NIfTI file of it, and what was changed on the way.

    Raises:
        ImageError: the series cannot be read as a volume, or the image cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="nnunet_3dct_") as folder:
        path = Path(folder) / f"{case.case}_0000.nii"
        volume = case.write_nifti(path)
        try:
            given = from_files([path], model, case.case, with_geometry=with_geometry)
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), case.case)) from error
    return replace(given, stored=lambda: [SimpleITK.GetArrayFromImage(case.read().image)]), volume.repairs


def one_dicom_case(source: Path, model: TrainedModel) -> DicomCase:
    """The only series of a source.

    Raises:
        ImageError: there is none, or more than one.
        SettingsError: the model takes several channels.
    """
    check_one_channel(model)
    cases = dicom_cases(source)
    if len(cases) > 1:
        names = listing([case.series.name for case in cases])
        raise ImageError(
            f"{source}: expected one series of images, found {len(cases)}: {names}. Give the folder of one, or predict "
            "all of them with predict_folder."
        )
    return cases[0]


def check_one_channel(model: TrainedModel) -> None:
    """Raise SettingsError where a series cannot be the whole image of a case."""
    if model.num_channels != 1:
        raise SettingsError(
            f"images: expected files of {model.num_channels} channels a case, found DICOM series, of which each is one "
            "image. Convert them to NIfTI and name the channels."
        )
