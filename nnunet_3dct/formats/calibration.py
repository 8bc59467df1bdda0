"""``calibration.json``: the temperature of a model's class probabilities, beside the model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from nnunet_3dct.errors import CheckpointError, listing

CALIBRATION_NAME = "calibration.json"


def read_temperature(model_folder: Path, head_weights: Mapping[str, str]) -> tuple[float | None, str | None]:
    """Read the temperature that belongs to the networks in use.

    Args:
        model_folder: where ``nnUNet3DCT_calibrate`` wrote it.
        head_weights: fold -> fingerprint of the head in use.

    Returns:
        The temperature, None if there is none or it was fitted to other networks; and in the latter case why it is
        not applied.

    Raises:
        CheckpointError: the file is no calibration.
    """
    path = model_folder / CALIBRATION_NAME
    if not path.is_file():
        return None, None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        temperature, fitted = float(content["temperature"]), dict(content["head_weights"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}. Remove it, or run nnUNet3DCT_calibrate.") from error
    if not (math.isfinite(temperature) and temperature > 0):
        raise CheckpointError(
            f"{path}: expected a temperature above 0, found {temperature}. Remove it, or run nnUNet3DCT_calibrate."
        )
    foreign = [fold for fold, found in head_weights.items() if fitted.get(fold) != found]
    if foreign:
        return None, (
            f"{path} is not applied: it was fitted to other weights than those of fold {listing(foreign)} with this "
            "checkpoint. Run nnUNet3DCT_calibrate again."
        )
    return temperature, None
