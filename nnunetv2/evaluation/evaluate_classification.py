"""Class metrics of a prediction folder; see ``nnunet_3dct.cli.evaluate_classification``."""

from nnunet_3dct.cli.evaluate_classification import main

if __name__ == "__main__":
    main()
