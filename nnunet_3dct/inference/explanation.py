"""Where the evidence for the predicted class of a case lies: from feature maps of windows to a volume of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from torch import Tensor

from nnunet_3dct.errors import NNUNet3DCTError
from nnunet_3dct.formats.class_files import ClassFile
from nnunet_3dct.inference.aggregation import CaseClass
from nnunet_3dct.inference.resampling import Plan, resample
from nnunet_3dct.inference.windows import Windows
from nnunet_3dct.networks.attribution import spread_over_patch
from nnunet_3dct.networks.multitask_unet import MultiTaskUNet
from nnunet_3dct.upstream import bounding_box_to_slice

STEPS = 2**16 - 1
EMPTY = "no place speaks for the predicted class: it rests on the head's biases"


class WindowExplainer:
    """Looks for the evidence in one window; the U-Net runs without gradient, only the head is differentiated.

    Args:
        network: in evaluation mode, without deep supervision.
        device: where it lies.
        precision: of the U-Net, ``f32``, ``bf16`` or ``fp16``; the head computes in fp32.
    """

    def __init__(self, network: MultiTaskUNet, device: torch.device, precision: str = "f32") -> None:
        self.network = network
        self.device = device
        self.type = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def move(self, device: torch.device) -> None:
        """Look on another device; what else uses the network finds it there."""
        self.network.to(device)
        self.device = device

    def __call__(self, window: Tensor, label: int) -> Tensor:
        """Signed evidence ``(*patch)`` for a class.

        Args:
            window: ``(C, *patch)``.
            label: the class.

        Raises:
            NNUNet3DCTError: the head gives no gradient.
        """
        x = window[None].to(self.device)
        with (
            torch.no_grad(),
            torch.autocast(
                self.device.type, dtype=self.type, enabled=self.type is not None and self.device.type != "cpu"
            ),
        ):
            _, features = self.network.segment_with_features(x)
        maps = self.network.cls_head.evidence(features, label)
        return spread_over_patch(maps, window.shape[1:])[0]


def explain_case(
    explainers: Sequence[WindowExplainer], windows: Windows, data: Tensor, case_class: CaseClass
) -> Tensor:
    """Evidence for the predicted class, averaged over windows and folds as the class is.

    Args:
        explainers: one for each fold.
        windows: as they were predicted.
        data: preprocessed image ``(C, Z, Y, X)``.
        case_class: what was predicted.

    Returns:
        ``(Z, Y, X)`` in the network's spacing, 0 where the sum speaks against the class; 0 everywhere if no place
        speaks for it, see :func:`note_empty_map`.

    Raises:
        NNUNet3DCTError: the evidence is not finite.
    """
    label, total = case_class.pred, torch.zeros(data.shape[1:])
    for explain, weights in zip(explainers, case_class.window_weights, strict=True):
        total += windows.blend(data, weights, partial(explain, label=label))
    if not bool(torch.isfinite(total).all()):
        raise NNUNet3DCTError("Evidence: expected finite numbers, found NaN or infinity. Predict it without.")
    return total.clamp_min_(0) / len(explainers)


def note_empty_map(report: ClassFile, evidence: Tensor | None) -> bool:
    """Say in a case's report that its map is black, and why; returns whether it is."""
    if evidence is None or bool(evidence.any()):
        return False
    report["evidence"] = EMPTY
    return True


def evidence_on_image_grid(evidence: Tensor, properties: dict[str, Any], plans_manager: Any) -> np.ndarray:
    """The evidence as the image's reader has it, ``(Z, Y, X)``, float32, with the maximum 1 if there is any.

    Args:
        evidence: ``(Z, Y, X)`` in the network's spacing, nowhere negative; resampled linearly, 0 outside the crop.
        properties: as preprocessing left them.
        plans_manager: of the model.
    """
    shape = properties["shape_after_cropping_and_before_resampling"]
    plan = Plan(tuple(evidence.shape), tuple(map(int, shape)), 1, None)
    found = np.zeros(properties["shape_before_cropping"], np.float32)
    found[bounding_box_to_slice(properties["bbox_used_for_cropping"])] = resample(evidence[None], plan)[0].numpy()
    found = found.transpose(plans_manager.transpose_backward)
    return found / max(found.max(), np.finfo(np.float32).tiny)


def evidence_image(evidence: np.ndarray, properties: dict[str, Any], plans_manager: Any, ending: str) -> Any:
    """The evidence with the grid and the orientation of the image file, as a SimpleITK image.

    Only the reader knows how it turned the file's axes, and it writes labels alone: the map goes through it as two
    volumes of bytes, in steps of 1/65535.

    Args:
        evidence: ``(Z, Y, X)``, 0 to 1.
        properties: of the reader.
        plans_manager: of the model.
        ending: of the image files.
    """
    steps = np.rint(evidence * STEPS).astype(np.uint16)
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"part{ending}"
        for part in (steps >> 8, steps & 255):
            plans_manager.image_reader_writer_class().write_seg(part.astype(np.uint8), str(path), properties)
            image = SimpleITK.ReadImage(str(path))
            parts.append(SimpleITK.GetArrayFromImage(image).astype(np.float32))
    turned = SimpleITK.GetImageFromArray((parts[0] * 256 + parts[1]) / np.float32(STEPS))
    turned.CopyInformation(image)
    return turned


def write_evidence(evidence: Tensor, properties: dict[str, Any], plans_manager: Any, path: Path, ending: str) -> None:
    """Write the map of a case, compressed, on the grid of its image.

    Args:
        evidence: ``(Z, Y, X)`` in the network's spacing.
        properties: as preprocessing left them.
        plans_manager: of the model.
        path: of the file; its folder is made.
        ending: of the image files.
    """
    volume = evidence_on_image_grid(evidence, properties, plans_manager)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(evidence_image(volume, properties, plans_manager, ending), str(path), True)
