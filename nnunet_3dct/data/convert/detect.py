"""Which kind of source a folder is."""

from __future__ import annotations

from pathlib import Path

from nnunet_3dct.data.convert.challenge import is_challenge
from nnunet_3dct.data.convert.decathlon import is_decathlon
from nnunet_3dct.data.convert.folders import Folders, find_folders
from nnunet_3dct.data.convert.source import list_volumes
from nnunet_3dct.dicom.series import holds_dicom
from nnunet_3dct.errors import SettingsError, listing
from nnunet_3dct.formats.dataset_json import read_dataset_json
from nnunet_3dct.paths import DATASET_FILE
from nnunet_3dct.runtime import check_choice

CHALLENGE, FOLDERS, DECATHLON, DICOM = KINDS = ("challenge", "folders", "decathlon", "dicom")


def find_kind(source: Path, stated: str | None, folders: Folders) -> tuple[str, Path]:
    """Kind of a source, and the folder where it begins: an archive often holds one folder with all the rest.

    Args:
        source: as given.
        stated: what the user says it is; None to find out.
        folders: where images and masks are, as far as the user says so; if they do, the kind is ``folders``, unless
            there is nothing but DICOM.

    Raises:
        SettingsError: there is no such source, it is a dataset of nnU-Net already, or none of the known kinds.
    """
    if stated is not None:
        check_choice("kind", stated, KINDS)
    if not source.exists():
        raise SettingsError(f"{source}: expected a folder to convert, found nothing. Check the path.")
    if source.is_file():
        if stated in (None, DICOM):
            return DICOM, source
        raise SettingsError(f"{source}: expected a folder, found a file. Unpack it if it is an archive.")
    root = source
    while True:
        kind = stated if stated in (FOLDERS, DICOM) else _kind_of(root, folders)
        if kind is not None and stated in (None, kind):
            return kind, root
        inside = [path for path in root.iterdir() if path.name != "__MACOSX" and not path.name.startswith(".")]
        if len(inside) == 1 and inside[0].is_dir():
            root = inside[0]
            continue
        if stated is not None:
            raise SettingsError(f"{source}: expected {_LOOKS[stated]}, found {_shown(source)}.")
        if holds_dicom(source):
            return DICOM, source
        raise SettingsError(
            f"{source}: expected one of: {'; '.join(f'{name} ({look})' for name, look in _LOOKS.items())}; found "
            f"{_shown(source)}. Say which it is (kind), and where images and masks are."
        )


_LOOKS = {
    CHALLENGE: "folders train/subtype0, train/subtype1, ..., validation, test",
    FOLDERS: "a folder of images, one of masks, a table of classes",
    DECATHLON: "imagesTr, labelsTr and the dataset.json of the Medical Segmentation Decathlon",
    DICOM: "DICOM files",
}


def _kind_of(root: Path, folders: Folders) -> str | None:
    if folders.images is not None:
        return FOLDERS
    if is_decathlon(root):
        return DECATHLON
    if (root / DATASET_FILE).is_file() and (root / "imagesTr").is_dir() and read_dataset_json(root)[0] is not None:
        raise SettingsError(
            f"{root}: is a raw dataset of nnU-Net already. To repair its files in place: "
            f"nnUNet3DCT_convert -i {root} --repair"
        )
    if is_challenge(root):
        return CHALLENGE
    found = find_folders(root, folders)
    if found.images is not None and list_volumes(root / found.images)[0]:
        return FOLDERS
    return None


def _shown(source: Path) -> str:
    return listing(sorted(path.name for path in source.iterdir()), 6) or "an empty folder"
