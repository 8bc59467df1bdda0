"""Names of the structures in a DICOM-SEG or RTSTRUCT, without reading its masks."""

from __future__ import annotations

import pydicom

from nnunet_3dct.dicom.identifiers import Identifiers
from nnunet_3dct.dicom.kinds import SEGMENTATION
from nnunet_3dct.dicom.series import Series
from nnunet_3dct.dicom.tags import items, quiet, text


def mask_names(masks: Series) -> list[str]:
    """Names in the file's order, as :func:`nnunet_3dct.dicom.references.read_masks` gives them; none if damaged."""
    try:
        with quiet():
            tags = pydicom.dcmread(masks.files[0], stop_before_pixels=True, force=True)
            identifiers = Identifiers()
            identifiers.note(tags)
            if masks.kind == SEGMENTATION:
                label_map = text(tags, "SegmentationType") == "LABELMAP"
                names = [
                    text(item, "SegmentLabel") or f"segment_{item.SegmentNumber}"
                    for item in items(tags, "SegmentSequence")
                    if not (label_map and int(item.SegmentNumber) == 0)
                ]
            else:
                names = [
                    text(item, "ROIName") or f"region_{item.ROINumber}"
                    for item in items(tags, "StructureSetROISequence")
                ]
        return list(dict.fromkeys(identifiers.hide(name) for name in names))
    except Exception:  # pydicom raises whatever the damaged bytes lead to; the case says so when its masks are read
        return []
