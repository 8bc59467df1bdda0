"""What names a patient stays in the source: keys in its place, and paths without it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydicom.dataset import Dataset

from nnunet_3dct.dicom.tags import read_tags, text

_NAMES = ("PatientName", "ReferringPhysicianName")
_NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID")
_DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID")
_KEPT_ON_REQUEST = ("PatientID", "PatientName", "StudyDate", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber")
_SHORTEST = 3  # characters of what is looked for in a path
_KEY_LENGTH = 12
# letters, then a number: what people call cases; UIDs, bare numbers, dates and names of persons are not like that
_NEUTRAL_NAME = re.compile(r"[A-Za-z][A-Za-z_-]{0,30}?[_-]?\d{1,6}")


def key(value: str) -> str:
    """Hash in place of an identifier, the same in every run: 12 hexadecimal digits.

    It keeps apart and tells equal, no more: whoever has all numbers of a hospital can compute their keys.
    """
    return hashlib.sha256(f"nnunet_3dct {value}".encode()).hexdigest()[:_KEY_LENGTH]


def patient_key(tags: Dataset) -> str:
    """Key of the patient: of the patient's number, else of name and date of birth, else of the study."""
    number = text(tags, "PatientID")
    if number:
        return key(f"{text(tags, 'IssuerOfPatientID')}|{number}")
    name = text(tags, "PatientName").strip("^")
    return key(f"{name}|{text(tags, 'PatientBirthDate')}" if name else text(tags, "StudyInstanceUID"))


def kept_identifiers(path: Path) -> dict[str, str]:
    """Identifiers of a file, keyword -> value, for a caller whose user asked to keep them.

    Raises:
        NotDicomError: the file cannot be read.
    """
    tags = read_tags(path).tags
    return {keyword: text(tags, keyword) for keyword in _KEPT_ON_REQUEST if text(tags, keyword)}


class Identifiers:
    """Identifiers that were met in a source; hides them in the paths that messages show."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def note(self, tags: Dataset) -> None:
        """Remember the identifiers of a file."""
        for keyword in _NAMES:
            for part in re.split(r"[\^=\s,]+", text(tags, keyword)):
                self._add(part)
        for keyword in (*_NUMBERS, *_UIDS):
            self._add(text(tags, keyword))
        for keyword in _DATES:
            date = text(tags, keyword)
            self._add(date)
            if len(date) == 8:
                year, month, day = date[:4], date[4:6], date[6:]
                for written in (f"{year}-{month}-{day}", f"{year}_{month}_{day}", f"{year}.{month}.{day}"):
                    self._add(written)
                for written in (f"{day}.{month}.{year}", f"{day}-{month}-{year}", f"{day}{month}{year}"):
                    self._add(written)

    def hide(self, shown: str) -> str:
        """``shown`` with every identifier replaced by ``hidden`` and a number; case does not matter."""
        for token in sorted(self._numbers, key=len, reverse=True):
            if token in shown.lower():
                shown = re.sub(re.escape(token), f"hidden{self._numbers[token]}", shown, flags=re.IGNORECASE)
        return shown

    def is_neutral(self, name: str) -> bool:
        """Whether a folder's name can name a case: letters, then a number, and nothing that identifies a patient."""
        return bool(_NEUTRAL_NAME.fullmatch(name)) and self.hide(name) == name

    def _add(self, token: str) -> None:
        token = token.lower()
        if len(token) >= _SHORTEST and token not in self._numbers:
            self._numbers[token] = len(self._numbers) + 1
