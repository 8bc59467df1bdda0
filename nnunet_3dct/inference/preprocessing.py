"""What the network sees of a case, and back: nnU-Net's preprocessing and export without their detours.

The steps are nnU-Net's and call its parts; resampling goes through matrices, no segmentation is resampled at
prediction, holes of the non-zero mask are not filled where only its box is needed, and logits become labels slab by
slab. Where plans name another preprocessor or another resampling, nnU-Net's own code runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_3dct.inference.resampling import Plan, plan_resampling, resample, resample_in_slabs
from nnunet_3dct.networks.target import argmax_labels
from nnunet_3dct.runtime import is_out_of_memory
from nnunet_3dct.upstream import (
    ConfigurationManager,
    DefaultPreprocessor,
    PlansManager,
    bounding_box_to_slice,
    compute_new_shape,
    get_bbox_from_mask,
    resample_data_or_seg_to_shape,
)


def preprocess(
    image: np.ndarray,
    properties: dict[str, Any],
    plans_manager: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: dict[str, Any],
    device: torch.device,
) -> Tensor:
    """Transpose, crop, normalise and resample an image.

    Args:
        image: ``(C, Z, Y, X)`` as nnU-Net's readers give it.
        properties: of the reader, with ``spacing`` [mm]; what export needs is added, as by nnU-Net.
        plans_manager, configuration, dataset_json: of the model.
        device: where resampling runs; the result lies on the CPU all the same.

    Returns:
        ``(C, Z, Y, X)`` in the network's spacing, float32, on the CPU.
    """
    preprocessor = configuration.preprocessor_class(verbose=False)
    spacing = [properties["spacing"][axis] for axis in plans_manager.transpose_forward]
    target = network_spacing(properties, plans_manager, configuration)
    if type(preprocessor) is not DefaultPreprocessor or any(configuration.use_mask_for_norm):
        data, _, _ = preprocessor.run_case_npy(image, None, properties, plans_manager, configuration, dataset_json)
        return torch.from_numpy(data).to(torch.float32).contiguous()

    data = image.transpose([0, *[axis + 1 for axis in plans_manager.transpose_forward]])
    properties["shape_before_cropping"] = data.shape[1:]
    box = get_bbox_from_mask((data != 0).any(0))
    properties["bbox_used_for_cropping"] = box
    inside = (slice(None), *bounding_box_to_slice(box))
    data = data[inside].astype(np.float32)
    properties["shape_after_cropping_and_before_resampling"] = data.shape[1:]
    nowhere = np.zeros((1, *data.shape[1:]), np.int8)  # the mask that these normalisations do not look at
    data = preprocessor._normalize(
        data, nowhere, configuration, plans_manager.foreground_intensity_properties_per_channel
    )
    new = compute_new_shape(data.shape[1:], spacing, target)
    plan = _plan(configuration.resampling_fn_data, data.shape[1:], new, spacing, target)
    if plan is None:
        data = configuration.resampling_fn_data(data, new, spacing, target)
        return torch.from_numpy(np.asarray(data)).to(torch.float32).contiguous()
    if plan.old == plan.new:
        return torch.from_numpy(np.ascontiguousarray(data))
    volume = torch.from_numpy(np.ascontiguousarray(data))
    if device.type == "mps":  # Metal, unlike CUDA, may not be used by two threads at once
        device = volume.device
    try:
        return resample(volume.to(device), plan).cpu()
    except RuntimeError as error:  # the network has the device's memory
        if not is_out_of_memory(error):
            raise
    return resample(volume, plan)


def network_spacing(
    properties: dict[str, Any], plans_manager: PlansManager, configuration: ConfigurationManager
) -> tuple[float, ...]:
    """Spacing of a preprocessed case in mm, in the order of its axes; 2D networks keep the distance of the slices."""
    spacing = [properties["spacing"][axis] for axis in plans_manager.transpose_forward]
    return (*spacing[: len(spacing) - len(configuration.spacing)], *configuration.spacing)


def segmentation_from_logits(
    logits: Tensor,
    properties: dict[str, Any],
    plans_manager: PlansManager,
    configuration: ConfigurationManager,
    label_manager: Any,
) -> np.ndarray:
    """Labels on the grid of the image file.

    Args:
        logits: ``(L, Z, Y, X)`` in the network's spacing, on any device; resampled there.
        properties: as :func:`preprocess` left them.
        plans_manager, configuration, label_manager: of the model.

    Returns:
        Labels ``(Z, Y, X)``, uint8 or, from 255 labels on, uint16.
    """
    spacing = [properties["spacing"][axis] for axis in plans_manager.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    current = network_spacing(properties, plans_manager, configuration)
    plan = _plan(configuration.resampling_fn_probabilities, logits.shape[1:], shape, current, spacing)
    if plan is None:
        # imports the compiler and the training code: a second that only unusual plans are worth
        from nnunet_3dct.upstream import convert_predicted_logits_to_segmentation_with_correct_shape

        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits.cpu(), plans_manager, configuration, label_manager, properties,
            num_threads_torch=torch.get_num_threads(),
        )  # fmt: skip
    found = np.zeros(
        properties["shape_before_cropping"], np.uint8 if len(label_manager.foreground_labels) < 255 else np.uint16
    )
    inside = found[bounding_box_to_slice(properties["bbox_used_for_cropping"])]
    try:
        _write_labels(inside, logits, plan, label_manager)
        return found.transpose(plans_manager.transpose_backward)
    except RuntimeError as error:  # the network has the device's memory
        if not is_out_of_memory(error):
            raise
    _write_labels(inside, logits.cpu(), plan, label_manager)
    return found.transpose(plans_manager.transpose_backward)


def _write_labels(inside: np.ndarray, logits: Tensor, plan: Plan, label_manager: Any) -> None:
    for rows, slab in resample_in_slabs(logits, plan):
        # nnU-Net's logits stay in half precision: rounding makes its ties
        slab = slab.to(logits.dtype)
        labels = (
            label_manager.convert_logits_to_segmentation(slab) if label_manager.has_regions else argmax_labels(slab)
        )
        inside[rows] = labels.cpu().numpy()


def _plan(
    function: Callable[..., Any],
    old: Sequence[int],
    new: Sequence[int],
    old_spacing: Sequence[float],
    new_spacing: Sequence[float],
) -> Plan | None:
    """The plan for what nnU-Net's plans name, None where that is another kind of resampling."""
    assert isinstance(function, partial)
    options = dict(function.keywords)
    usual = function.func is resample_data_or_seg_to_shape and not options.pop("is_seg", False)
    if not usual or options.pop("order_z", 0) != 0:
        return None
    options.setdefault("force_separate_z", False)  # as the function itself does
    return plan_resampling(old, new, old_spacing, new_spacing, options.pop("order", 3), **options)
