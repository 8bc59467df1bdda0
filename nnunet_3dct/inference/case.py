"""The way of a case: image -> what the network sees -> both answers -> labels on the image's grid and class file.

:class:`~nnunet_3dct.inference.predictor.Predictor` goes it for one image, and for a folder with threads on either side
of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from nnunet_3dct.formats.class_files import ClassFile, class_file
from nnunet_3dct.formats.clinical import Covariates
from nnunet_3dct.formats.geometry import check_planned_size
from nnunet_3dct.formats.image_files import is_constant
from nnunet_3dct.inference.case_input import CaseInput, Stored
from nnunet_3dct.inference.covariates import note_covariates
from nnunet_3dct.inference.explanation import note_empty_map
from nnunet_3dct.inference.model import TrainedModel
from nnunet_3dct.inference.preprocessing import network_spacing, preprocess, segmentation_from_logits
from nnunet_3dct.inference.reasons import reasons
from nnunet_3dct.inference.unusual import unfamiliar_features
from nnunet_3dct.inference.windows import AboutCase

CONSTANT = "the image holds one and the same value in every voxel"
NO_TARGET = "no voxel of the target was found"


@dataclass(frozen=True)
class PreparedCase:
    """What the network sees of a case.

    Attributes:
        case: identifier.
        data: ``(C, Z, Y, X)`` in the network's spacing.
        properties: what export needs.
        constant: whether the image is without content.
        covariates: of the case; None for a model without.
        stored: as in :class:`~nnunet_3dct.inference.case_input.CaseInput`.
    """

    case: str
    data: Tensor
    properties: dict[str, Any]
    constant: bool
    covariates: Covariates | None = None
    stored: Stored | None = None


@dataclass(frozen=True)
class CaseAnswer:
    """What the network says of a case.

    Attributes:
        case: identifier.
        logits: of the segmentation ``(L, Z, Y, X)``, in the network's spacing.
        evidence: ``(Z, Y, X)`` in the network's spacing, if asked for.
        properties: what export needs.
        class_file: complete but for the voxels of the target, see :func:`note_target`.
        constant: whether the image is without content.
        stored: as in :class:`~nnunet_3dct.inference.case_input.CaseInput`.
    """

    case: str
    logits: Tensor
    evidence: Tensor | None
    properties: dict[str, Any]
    class_file: ClassFile
    constant: bool
    stored: Stored | None = None


def prepare(model: TrainedModel, given: CaseInput, covariates: Covariates | None = None) -> PreparedCase:
    """Crop, normalise and resample the image.

    Args:
        model: that will predict it.
        given: the image.
        covariates: of the case, checked.

    Raises:
        ImageError: it would be too large in the network's spacing.
    """
    forward = model.plans_manager.transpose_forward
    check_planned_size(
        [given.image.shape[1 + axis] for axis in forward],
        [given.properties["spacing"][axis] for axis in forward],
        model.configuration_manager.spacing,
        given.case,
    )
    data = preprocess(
        given.image, given.properties, model.plans_manager, model.configuration_manager, model.dataset_json,
        model.device,
    )  # fmt: skip
    return PreparedCase(given.case, data, given.properties, is_constant(given.image), covariates, given.stored)


def predict(model: TrainedModel, prepared: PreparedCase) -> CaseAnswer:
    """Run the network.

    Raises:
        RuntimeError: the case does not fit the device, or the pass failed.
    """
    spacing = network_spacing(prepared.properties, model.plans_manager, model.configuration_manager)
    output = model.predict(prepared.data, AboutCase(spacing, prepared.covariates))
    content = class_file(
        output.case_class.probs,
        model.class_names,
        temperature=model.temperature,
        review_below=model.options.abstain,
        **output.case_class.describe(),
        **model.describe(),
    )
    note_empty_map(content, output.evidence)
    note_covariates(content, model.encodings, prepared.covariates)
    columns = output.case_class.columns
    if columns:
        content["reasons"] = reasons(model.case_heads, columns, content["pred"], model.intensities)
    remarks = unfamiliar_features(model.case_heads, columns)
    if model.seen_sizes is not None:
        remarks += model.seen_sizes.remarks(prepared.properties, model.plans_manager.transpose_forward)
    if remarks:
        content["unusual"] = [*content.get("unusual", []), *remarks]
    _review_unusual(content)
    return CaseAnswer(
        prepared.case, output.logits, output.evidence, prepared.properties, content, prepared.constant, prepared.stored
    )


def segment(model: TrainedModel, answer: CaseAnswer) -> np.ndarray:
    """Labels ``(Z, Y, X)`` on the grid of the image, in the axes of the model's reader."""
    return segmentation_from_logits(
        answer.logits, answer.properties, model.plans_manager, model.configuration_manager, model.label_manager
    )


def note_target(model: TrainedModel, answer: CaseAnswer, segmentation: np.ndarray) -> ClassFile:
    """The class file with the number of target voxels; without any, or of an image without content, it says so."""
    voxels = int(np.isin(segmentation, model.target.labels).sum())
    content: ClassFile = {**answer.class_file, "target_voxels": voxels}
    reason = CONSTANT if answer.constant else NO_TARGET if voxels == 0 else None
    if reason is not None:
        content["without_basis"] = reason
        content["unusual"] = [*content.get("unusual", []), reason]
    _review_unusual(content)
    return content


def _review_unusual(content: ClassFile) -> None:
    """Where cases are marked for review at all, those that are unlike the training cases are."""
    if "review" in content and content.get("unusual"):
        content["review"] = True
