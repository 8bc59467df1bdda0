"""The case head: one linear layer over features of the whole case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_3dct.formats.clinical_columns import Value
from nnunet_3dct.formats.covariate_encoding import CovariateEncoding
from nnunet_3dct.networks.attribution import class_margin
from nnunet_3dct.networks.case_layout import CaseLayout
from nnunet_3dct.networks.familiarity import Familiarity
from nnunet_3dct.networks.features import FeatureSpec, UNetFeatures
from nnunet_3dct.networks.frozen_encoder import EncoderConfig, FrozenEncoder
from nnunet_3dct.networks.heads import register_head
from nnunet_3dct.networks.heads.base import WholeCaseHead
from nnunet_3dct.networks.pooling import merge_windows, pool_features, unpool_features
from nnunet_3dct.networks.standardize import RunningStandardize

LEAST_SPREAD = 1e-3
LEAST_TARGET = 3.0  # log2 of the voxels below which averages under the target mean nothing


@register_head
class CaseHead(WholeCaseHead):
    """A linear classifier of what a whole case shows under the target.

    The class is computed once a case. Every window gives mean and spread of each encoder and decoder stage where the
    network sees the target; :meth:`merge` puts the windows together. Beside them stand what is measured of the image
    under the predicted target, and covariates of the patient. Which of these columns have a weight, and which
    classifier finds the weights, is chosen on the training cases: :mod:`nnunet_3dct.training.head_choice`.

    In training on patches the columns that only a whole case has count as average.

    Args:
        spec: features of the network.
        num_classes: number of classes.
        target_channels: channels of the segmentation logits that make up the target.
        regions: whether those are overlapping regions (sigmoid) rather than labels (softmax).
        channels: of the image that is measured.
        measured: block -> names of what is measured of the image.
        covariates: how the patient's covariates become columns, see
            :class:`~nnunet_3dct.formats.covariate_encoding.CovariateEncoding`; None for none.
        dropout: before the linear layer, in training on patches.
        gradient: share of the class loss's gradient that reaches the network, 0 to 1. At 0 the network learns from
            the segmentation alone.
        encoder: describes an encoder of another training, see
            :mod:`~nnunet_3dct.networks.frozen_encoder`; its stages are then pooled in place of the network's own.
        known_cases: how many directions of the training cases each
            :class:`~nnunet_3dct.networks.familiarity.Familiarity` holds, one for each group of features.
    """

    name = "case"

    def __init__(
        self,
        spec: FeatureSpec,
        num_classes: int,
        target_channels: Sequence[int] = (1,),
        regions: bool = False,
        channels: int = 1,
        measured: Mapping[str, Sequence[str]] | None = None,
        covariates: dict[str, Any] | None = None,
        dropout: float = 0.1,
        gradient: float = 0.0,
        known_cases: Sequence[int] = (),
        encoder: EncoderConfig | None = None,
    ) -> None:
        measured = {block: list(names) for block, names in (measured or {}).items()}
        options = {"target_channels": list(target_channels), "regions": regions, "channels": channels}
        options |= {
            "measured": measured,
            "covariates": covariates,
            "known_cases": list(known_cases),
        }
        if encoder is not None:
            options["encoder"] = encoder
        super().__init__(spec, num_classes, **options, dropout=dropout, gradient=gradient)
        self.target_channels = list(target_channels)
        self.regions = regions
        self.channels = channels
        self.measured = tuple(name for names in measured.values() for name in names)
        self.gradient = gradient
        self.encoding = CovariateEncoding.from_dict(covariates) if covariates else None
        self.pooled_spec = spec
        if encoder is not None:
            self.encoder = FrozenEncoder(encoder)
            self.pooled_spec = self.encoder.spec
        self.layout = CaseLayout.of(self.pooled_spec, measured, self.encoding.names if self.encoding else ())
        width = len(self.layout.names)
        self.norm = RunningStandardize(width, least_spread=LEAST_SPREAD)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)
        with torch.no_grad():
            self.classifier.weight[:, self.layout.network_width :] = 0
        self.familiarity = nn.ModuleList(Familiarity(width, directions) for directions in known_cases)

    def summarize(self, features: UNetFeatures, importance: Tensor | None = None) -> tuple[Tensor, ...]:
        """Pooled features of a window ``(B, network_width)``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient > 0):
            pooled = pool_features(self._pooled_stages(features), self.target_channels, self.regions, importance)
        return (torch.lerp(pooled.detach(), pooled, self.gradient) if 0 < self.gradient < 1 else pooled,)

    def _pooled_stages(self, features: UNetFeatures) -> UNetFeatures:
        """Features with the stages that are pooled: those of the encoder of another training, if there is one."""
        if self.encoder is None:
            return features
        if features.image is None:
            raise ValueError("features.image: expected the image, which the head's own encoder looks at, found None.")
        with torch.no_grad():
            return features._replace(encoder=self.encoder(features.image), decoder=[])

    def merge(self, windows: Tensor, shares: Tensor) -> Tensor:
        """See :func:`~nnunet_3dct.networks.pooling.merge_windows`."""
        return merge_windows(windows, shares, self.pooled_spec)

    def encode_covariates(self, values: Mapping[str, Value] | None) -> np.ndarray:
        """Columns of a patient's covariates ``(K,)``."""
        return self.encoding.encode(values) if self.encoding else np.zeros(0)

    def classify(self, *summary: Tensor) -> Tensor:
        """Class logits of patches, by the columns of the network alone."""
        (pooled,) = summary
        shows_target = pooled[:, -1] > LEAST_TARGET
        with torch.autocast(pooled.device.type, enabled=False):
            rest = self.norm.mean[pooled.shape[1] :].expand(len(pooled), -1)
            return self.classifier(self.dropout(self.norm(torch.cat([pooled, rest], dim=1), shows_target)))

    def found_target(self, columns: Tensor) -> Tensor:
        """Whether cases ``(N, width)`` show any target, bool ``(N,)``."""
        return columns[:, self.layout.network_width - 1] > LEAST_TARGET

    @property
    def known(self) -> list[Familiarity]:
        """What the training cases look like, one for each group of features; empty before the fit."""
        return [one for one in self.familiarity if isinstance(one, Familiarity) and one.is_fitted]

    @torch.no_grad()
    def strangeness(self, columns: Tensor) -> Tensor:
        """How far cases lie from the training cases, ``(N,)``: above 1 farther than nearly all of their kind.

        The largest distance of several groups of features: a network that normalises what it sees hardly notices
        noise or inverted intensities, which are plain in what is measured of the image.
        """
        if not self.known:
            return torch.zeros(len(columns))
        columns = columns.to(self.known[0].center.device)
        return torch.stack([one.distance(columns) / one.threshold for one in self.known]).amax(0)

    def complete(self, columns: Tensor) -> Tensor:
        """The columns of cases ``(N, width)`` with the average of the training cases where something is missing."""
        return torch.where(torch.isfinite(columns), columns, self.norm.mean.to(columns.dtype))

    def classify_case(self, columns: Tensor) -> Tensor:
        """Class logits ``(N, num_classes)`` of whole cases; NaN counts as average.

        Args:
            columns: ``(N, width)``, see :class:`~nnunet_3dct.networks.case_layout.CaseLayout`.
        """
        with torch.autocast(columns.device.type, enabled=False):
            return self.classifier(self.norm(self.complete(columns.float())))

    @torch.no_grad()
    def contributions(self, columns: Tensor, label: int) -> Tensor:
        """What each column adds to the margin of a class above the others, ``(width,)``; the bias adds the rest.

        Args:
            columns: of one case ``(width,)``.
            label: the class.
        """
        standardized = self.norm(self.complete(columns[None].float()))[0]
        return standardized * class_margin(self.classifier.weight.T, label)

    @torch.no_grad()
    def evidence(self, features: UNetFeatures, label: int) -> list[Tensor]:
        """The columns of the network taken apart exactly, against what the training cases show on average.

        What is measured of the image has its place in the outline as a whole and is told in words instead, see
        :mod:`nnunet_3dct.inference.reasons`.
        """
        features = self._pooled_stages(features)
        pooled = pool_features(features, self.target_channels, self.regions)
        width = pooled.shape[1]
        above = pooled - self.norm.mean[:width]
        rest = self.norm.mean[width:].expand(len(pooled), -1)
        standardized = self.norm(torch.cat([pooled, rest], dim=1))[:, :width]
        slopes = standardized / torch.where(above == 0, 1.0, above)  # a feature that is cut off keeps its limit
        slopes = slopes * class_margin(self.classifier.weight.T, label)[:width]
        return unpool_features(features, self.target_channels, self.regions, slopes, self.norm.mean[:width])
