"""What a DICOM file holds: an image of a series, masks, or something to leave out, and why."""

from __future__ import annotations

from pydicom import uid

from nnunet_3dct.dicom.tags import TaggedFile, number, text

IMAGE, SEGMENTATION, STRUCTURES = "image", "segmentation", "structures"

ENHANCED = frozenset(
    {
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.EnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.EnhancedPETImageStorage,
        uid.LegacyConvertedEnhancedPETImageStorage,
    }
)
_IMAGES = ENHANCED | {uid.CTImageStorage, uid.MRImageStorage, uid.PositronEmissionTomographyImageStorage}
_SEGMENTATIONS = {uid.SegmentationStorage, "1.2.840.10008.5.1.4.1.1.66.7"}  # the second: label maps
# words of ImageType -> what such an image is
_NO_SLICES = {
    "LOCALIZER": "a localizer",
    "SCOUT": "a localizer",
    "TOPOGRAM": "a localizer",
    "SURVIEW": "a localizer",
    "SCREEN SAVE": "a screen shot",
    "SCREENSAVE": "a screen shot",
    "DOSE": "a dose report",
    "DOSE_INFO": "a dose report",
    "DOSE REPORT": "a dose report",
    "CSA REPORT": "a report",
    "REPORT": "a report",
    "PROTOCOL": "a protocol sheet",
}


def kind_of(file: TaggedFile) -> tuple[str, str]:
    """Kind of a file, and an empty text; or an empty text and the reason to leave it out."""
    storage = uid.UID(text(file.tags, "SOPClassUID"))
    if storage in _SEGMENTATIONS:
        return SEGMENTATION, ""
    if storage == uid.RTStructureSetStorage:
        return STRUCTURES, ""
    meta = getattr(file.tags, "file_meta", None)
    if meta is not None and meta.get("MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
        return "", "DICOMDIR, an index of other files"
    if not storage:
        return "", "a DICOM file that does not say what it holds"
    if storage not in _IMAGES:
        return "", f"no CT, MR or PET image: {storage.name if storage.name != str(storage) else 'a private kind'}"
    reason = _no_slice(file) or _no_pixels(file)
    return ("", reason) if reason else (IMAGE, "")


def _no_slice(file: TaggedFile) -> str:
    value = file.tags.get("ImageType") or []
    words = [value] if isinstance(value, str) else [str(word) for word in value]
    for word in words:
        for known, reason in _NO_SLICES.items():
            if word.strip().upper() == known:
                return reason
    if (number(file.tags, "SamplesPerPixel") or 1) != 1:
        return "a colour picture"
    return ""


def _no_pixels(file: TaggedFile) -> str:
    rows, columns = number(file.tags, "Rows"), number(file.tags, "Columns")
    if not rows or not columns or file.pixel_bytes == 0:
        return "no pixels"
    if file.pixel_bytes is None or (file.syntax is not None and file.syntax.is_compressed):
        return ""
    frames, bits = number(file.tags, "NumberOfFrames") or 1, number(file.tags, "BitsAllocated") or 16
    needed = int(rows * columns * frames * bits // 8)
    if file.pixel_bytes < needed:
        return f"cut off: expected {needed} bytes of pixels, found {max(file.pixel_bytes - 12, 0)}"
    return ""
