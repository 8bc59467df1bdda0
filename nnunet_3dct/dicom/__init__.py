"""DICOM in and out. Nothing outside this room imports pydicom or highdicom."""
