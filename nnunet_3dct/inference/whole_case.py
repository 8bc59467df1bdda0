"""The features of a whole case, from its windows and from what is measured under the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nnunet_3dct.formats.clinical_columns import Value
from nnunet_3dct.inference.aggregation import CaseClass
from nnunet_3dct.inference.measurements import measure_case
from nnunet_3dct.networks.heads.base import WholeCaseHead
from nnunet_3dct.networks.heads.case import LEAST_TARGET
from nnunet_3dct.networks.pooling import target_probability


class WholeCaseRecord:
    """Collects what the plain pass over each window shows, and makes the class of the case of it.

    Args:
        head: of the network.
        shape: spatial, of the padded case.
        device: where the probability of the target is put together.
    """

    def __init__(self, head: WholeCaseHead, shape: Sequence[int], device: torch.device) -> None:
        self.head = head
        self.probability = torch.zeros(tuple(shape), device=device)
        self._pooled: list[Tensor] = []
        self._shares: list[float] = []

    def add(self, window: tuple[slice | int, ...], pooled: Tensor, logits: Tensor, share: Tensor) -> None:
        """Note the plain pass over a window.

        Args:
            window: position, the first entry that of the channels.
            pooled: features ``(width,)``.
            logits: of the segmentation ``(L, *patch)``.
            share: of the voxels in the window ``(1, *patch)``, on the CPU.
        """
        target = target_probability(logits[None].float(), self.head.target_channels, self.head.regions)[0, 0]
        self.probability[window[1:]] += (target * share[0].to(target.device)).to(self.probability.device)
        self._pooled.append(pooled.detach().cpu().double())
        self._shares.append(float(share.double().sum()))

    def columns(
        self,
        image: Tensor,
        inside: tuple[slice, ...],
        spacing: Sequence[float],
        covariates: Mapping[str, Value] | None = None,
    ) -> Tensor:
        """Features of the case ``(width,)``, float64; NaN where there is nothing to measure.

        Args:
            image: preprocessed ``(C, Z, Y, X)``, as it was before padding.
            inside: where it lies in the padded case, spatial.
            spacing: of its voxels in mm.
            covariates: of the patient; None where all are missing or the head knows none.
        """
        merged = self.head.merge(torch.stack(self._pooled), torch.tensor(self._shares, dtype=torch.float64))
        parts = [merged]
        if self.head.measured:
            image = image[: self.head.channels]
            probability = self.probability[inside].cpu().numpy()
            measured = measure_case(image.cpu().numpy(), probability, spacing, self.head.measured)
            parts.append(torch.from_numpy(measured))
        return torch.cat([*parts, torch.from_numpy(self.head.encode_covariates(covariates))])

    def result(self, columns: Tensor, passes_per_window: int) -> CaseClass:
        """The class.

        Args:
            columns: see :meth:`columns`.
            passes_per_window: that went through the network; the class is that of the plain ones.
        """
        weight = next(self.head.parameters())
        logits = self.head.classify_case(columns[None].to(weight.device, weight.dtype))[0]
        target = torch.exp2(torch.stack(self._pooled)[:, -1]) - 1
        saw_target = bool((target.sum() + 1).log2() > LEAST_TARGET)
        weights = target / target.sum() if bool(target.sum() > 0) else torch.full_like(target, 1 / len(target))
        probs = tuple(logits.double().softmax(0).tolist())
        return CaseClass(
            probs, len(target), passes_per_window, 1, saw_target, (tuple(weights.tolist()),), (columns.cpu(),)
        )
