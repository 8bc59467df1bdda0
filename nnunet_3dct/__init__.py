"""Joint 3D segmentation and case-level classification on top of nnU-Net v2."""

__version__ = "0.1.0"
