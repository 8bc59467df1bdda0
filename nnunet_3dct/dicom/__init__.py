"""DICOM series in and results out; nothing else imports pydicom or highdicom."""
