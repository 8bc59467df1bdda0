"""Windows in which there is nothing to see: air around the patient, or the zeros around a masked image."""

from __future__ import annotations

from collections.abc import Callable

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

MOST_NOT_EMPTY = 1e-3  # share of voxels: noise, table, ringing of the interpolation


def empty_window_rule(plans_manager: PlansManager, configuration: ConfigurationManager) -> Callable[[Tensor], bool]:
    """A function that says whether a preprocessed window ``(C, *patch)`` is empty.

    With nnU-Net's CT normalisation a voxel is empty where it lies at the lower clip, the 0.5 percentile of the
    foreground of the training data: air, and what is darker than all that was ever outlined. Otherwise it is empty
    where the image is lowest, which only serves images whose surroundings are constant. A window is empty when at
    most one voxel in a thousand is not.
    """
    statistics = plans_manager.foreground_intensity_properties_per_channel
    thresholds = []
    for channel, scheme in enumerate(configuration.normalization_schemes):
        found = statistics[str(channel)]
        if scheme == "CTNormalization":
            thresholds.append((found["percentile_00_5"] - found["mean"]) / max(found["std"], 1e-8) + 0.05)
        else:
            thresholds.append(None)

    def is_empty(window: Tensor) -> bool:
        visible = None
        for image, threshold in zip(window, thresholds, strict=False):
            low = image.amin() if threshold is None else threshold
            here = image > low
            visible = here if visible is None else visible | here
        return visible is not None and float(visible.double().mean()) <= MOST_NOT_EMPTY

    return is_empty
