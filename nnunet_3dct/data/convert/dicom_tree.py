"""A tree of DICOM series: a case for each image series, masks from DICOM-SEG, RTSTRUCT or NIfTI.

Nothing that names a patient gets out of here unless the user asks for it: cases are numbered or named by neutral
folders, patients are numbered, and records name series by keys.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK

from nnunet_3dct.data.convert.folders import Folders, mask_files
from nnunet_3dct.data.convert.source import Source, SourceCase, relative
from nnunet_3dct.data.repairs import DICOM
from nnunet_3dct.dicom.cases import DicomCase, cases_of, write_image
from nnunet_3dct.dicom.identifiers import kept_identifiers
from nnunet_3dct.dicom.mask_names import mask_names
from nnunet_3dct.dicom.references import read_masks
from nnunet_3dct.dicom.series import find_series
from nnunet_3dct.dicom.volume import DicomVolume
from nnunet_3dct.errors import ImageError, listing
from nnunet_3dct.formats.conversion import CaseRecord, RepairRecord, file_sha256

# reasons to leave a file out that every export has, and that nobody has to mend
_USUAL = (
    "a localizer", "a screen shot", "a dose report", "a report", "a protocol sheet", "a colour picture", "DICOMDIR",
    "no CT, MR or PET image", "a hidden file", "slices of another orientation", "no DICOM file",
)  # fmt: skip
_DICOM_ENDINGS = (".dcm", ".ima", ".dicom")


def read_dicom(root: Path, folders: Folders, *, keep_ids: bool = False) -> Source:
    """Cases of a tree, or a ZIP archive, of DICOM files.

    Args:
        root: the tree.
        folders: ``masks`` may name NIfTI masks.
        keep_ids: name cases and patients by their identifiers.

    Raises:
        ImageError: the source is an archive that cannot be unpacked.
    """
    scan = find_series(root)
    source = Source("dicom", root, keep=scan)
    usual: Counter[str] = Counter()
    for name, reason in scan.left_out.items():
        if reason.startswith(_USUAL) and not (reason.startswith("no DICOM") and name.lower().endswith(_DICOM_ENDINGS)):
            usual[reason.split(":")[0]] += 1
        else:
            source.left_out[name] = reason
    if usual:
        counts = [f"{number} {reason}" for reason, number in usual.most_common()]
        source.notes.append(f"{sum(usual.values())} files that are no slices are left out: {listing(counts)}.")
    cases = cases_of(scan)
    patients = {key: f"patient_{n:04d}" for n, key in enumerate(sorted({c.series.patient_key for c in cases}), start=1)}
    names = _names_with_ids(cases) if keep_ids else {case.series.uid: case.case for case in cases}
    nifti = mask_files(root, folders.masks, source) if folders.masks is not None else None
    for case in cases:
        identifiers = kept_identifiers(case.files[0])
        name = names[case.series.uid]
        also = (*_also(case, root), *identifiers.values())
        mask = nifti.take(*(other for other in (name, *also) if other))[1] if nifti else None
        patient = identifiers.get("PatientID", "") if keep_ids else ""
        source.cases.append(
            SourceCase(
                name, "Tr", _without_archive(case).files, mask,
                patient=patient or patients[case.series.patient_key], also=also, dicom=_without_archive(case),
                hint="; expected a DICOM-SEG or RTSTRUCT that refers to the series, or a NIfTI mask of its name",
                identifiers=identifiers if keep_ids else {},
            )
        )  # fmt: skip
    for path in nifti.left() if nifti else []:
        source.left_out[relative(path, root)] = "is a mask without a series"
    used = {masks.files for case in cases for masks in case.masks}
    for masks in scan.masks:
        if masks.files not in used:
            source.left_out[masks.place] = f"{masks.modality} that refers to no series here"
    if all(case.mask is None and not (case.dicom and case.dicom.masks) for case in source.cases):
        source.notes.append("no series has a mask: all go to imagesTs, where they can be predicted.")
        source.cases = [replace(case, part="Ts") for case in source.cases]
    source.label_names = _label_names(cases) if nifti is None else None
    return source


def keep_names(source: Source, earlier: Mapping[str, CaseRecord]) -> None:
    """Give series the names that an earlier run gave them, and new ones numbers that are free."""
    known = {file.source: name for name, record in earlier.items() for file in record.files.values()}
    kept = {case.case: known[series_key(case.dicom)] for case in source.cases
            if case.dicom is not None and series_key(case.dicom) in known}  # fmt: skip
    taken = {*earlier, *kept.values()}
    renamed = []
    for case in source.cases:
        name = kept.get(case.case, case.case)
        if case.dicom is not None and case.case not in kept and name in taken:
            name = next(free for n in range(1, 10**6) if (free := f"case_{n:04d}") not in taken)
        taken.add(name)
        renamed.append(replace(case, case=name))
    source.cases = renamed


def series_key(case: DicomCase) -> str:
    """What stands for a series in records."""
    return f"series {case.series.uid}"


def series_sha256(case: DicomCase) -> str:
    """Hash of all files of a series and of its masks."""
    digest = hashlib.sha256()
    for path in (*case.files, *(path for masks in case.masks for path in masks.files)):
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def write_series(case: DicomCase, target: Path) -> tuple[DicomVolume, list[RepairRecord]]:
    """Write the image of a series as NIfTI; returns it and what was changed in it.

    Raises:
        ImageError, OutputError: as :meth:`~nnunet_3dct.dicom.cases.DicomCase.write_nifti`.
    """
    volume = case.write_nifti(target)
    return volume, [_record(text) for text in volume.repairs]


def write_masks(
    case: DicomCase, volume: DicomVolume, labels: Mapping[str, int], target: Path
) -> tuple[list[RepairRecord], list[str]]:
    """Write the masks of a series as one label map; where they overlap, the higher label counts.

    Args:
        case: whose masks.
        volume: its image.
        labels: name of a structure, folded -> label; structures that are not in it are left out.
        target: of the label map.

    Returns:
        What was changed, and the names of structures that were left out.

    Raises:
        ImageError: as :func:`~nnunet_3dct.dicom.references.read_masks`; or no structure has a label.
    """
    repairs: list[RepairRecord] = []
    by_label: dict[int, np.ndarray] = {}
    other = []
    for series in case.masks:
        reference = read_masks(series, volume, case.case)
        repairs += [_record(text) for text in reference.repairs]
        for name, mask in reference.masks.items():
            label = labels.get(name.casefold())
            if label is None:
                other.append(name)
            else:
                by_label[label] = by_label[label] | mask if label in by_label else mask
    if not by_label:
        raise ImageError(
            f"{case.case}: expected one of the structures {listing(list(labels))}, found {listing(other) or 'none'}. "
            "Name those that are labels (label_names)."
        )
    array = np.zeros(volume.image.GetSize()[::-1], np.uint8)
    overlap = 0
    for label in sorted(by_label):
        overlap += int(np.count_nonzero(array[by_label[label]]))
        array[by_label[label]] = label
    if overlap:
        repairs.append({**_record("structures overlap; the higher label counts"), "count": overlap})
    image = SimpleITK.GetImageFromArray(array)
    image.CopyInformation(volume.image)
    write_image(image, target)
    return repairs, other


def _record(text: str) -> RepairRecord:
    return {"kind": DICOM, "count": 1, "found": text}


def _also(case: DicomCase, root: Path) -> tuple[str, ...]:
    """What a table may call the case, beside its identifiers: its folders and keys."""
    parents = list(dict.fromkeys(path.parent for path in case.files))
    inside = [path for parent in parents for path in (parent, *parent.parents) if path.is_relative_to(root)]
    names = [path.name for path in inside if path != root]
    return tuple(dict.fromkeys([case.case, *names, case.series.uid]))


def _without_archive(case: DicomCase) -> DicomCase:
    """The case as it can be sent to another process, which must not remove what an archive was unpacked to."""
    masks = tuple(replace(series, archive=None) for series in case.masks)
    return replace(case, series=replace(case.series, archive=None), masks=masks)


def _names_with_ids(cases: Sequence[DicomCase]) -> dict[str, str]:
    """Series -> the patient's number, with a number after it where a patient has several series."""
    numbers = {case.series.uid: kept_identifiers(case.files[0]).get("PatientID") or case.case for case in cases}
    several = Counter(numbers.values())
    seen: Counter[str] = Counter()
    names = {}
    for case in cases:
        number = numbers[case.series.uid]
        seen[number] += 1
        names[case.series.uid] = f"{number}_{seen[number]}" if several[number] > 1 else number
    return names


def _label_names(cases: Sequence[DicomCase]) -> dict[int, str]:
    names: dict[str, str] = {}
    for masks in dict.fromkeys(series for case in cases for series in case.masks):
        for name in mask_names(masks):
            names.setdefault(name.casefold(), name)
    return dict(enumerate(names.values(), start=1))
