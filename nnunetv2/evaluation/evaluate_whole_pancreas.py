"""Dice of all foreground labels taken as one organ; see ``nnunet_3dct.cli.evaluate_whole_organ``."""

from nnunet_3dct.cli.evaluate_whole_organ import main

if __name__ == "__main__":
    main()
