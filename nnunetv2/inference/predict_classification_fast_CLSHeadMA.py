"""The seed's script path; the same program as ``nnUNet3DCT_predict`` (the head is read from the checkpoint)."""

from nnunet_3dct.cli.predict import main

if __name__ == "__main__":
    main()
