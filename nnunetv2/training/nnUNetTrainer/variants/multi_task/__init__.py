"""Trainers of nnunet_3dct, at the place where nnU-Net looks for trainers."""
