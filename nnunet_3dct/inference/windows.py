"""One case through a network, window by window: both outputs from the same passes.

Where windows lie, how they are weighted and in which precision they are summed is nnU-Net's; several passes, of one
window or of many, go through the network at once where the device gains by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from nnunet_3dct.formats.clinical_columns import Value
from nnunet_3dct.inference.aggregation import CaseClass, ClassRecord
from nnunet_3dct.inference.backends.base import Backend
from nnunet_3dct.inference.whole_case import WholeCaseRecord
from nnunet_3dct.inference.window_shares import window_shares
from nnunet_3dct.networks.heads.base import WholeCaseHead
from nnunet_3dct.networks.target import TargetLabels
from nnunet_3dct.upstream import (
    ConfigurationManager,
    PlansManager,
    compute_gaussian,
    compute_steps_for_sliding_window,
    pad_nd_image,
)

Slices = tuple[slice | int, ...]


@dataclass(frozen=True)
class AboutCase:
    """What a preprocessed image does not say of its case.

    Attributes:
        spacing: of its voxels in mm, in the order of its axes.
        covariates: of the patient, for a head that was trained with some; None for none.
    """

    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    covariates: Mapping[str, Value] | None = None


NOTHING = AboutCase()
Axes = tuple[int, ...]


def mirrored_passes(allowed: Sequence[int] | None, tta: str) -> list[Axes]:
    """Spatial axes to mirror in each pass over a window; the plain pass comes first.

    Args:
        allowed: axes that training mirrored.
        tta: ``none``; ``pair``, all axes at once; ``flips``, each axis alone; ``full``, every combination, as in
            nnU-Net.
    """
    axes = tuple(allowed or ())
    if tta == "pair":
        return [(), axes] if axes else [()]
    most = {"none": 0, "flips": min(1, len(axes)), "full": len(axes)}[tta]
    return [chosen for count in range(most + 1) for chosen in combinations(axes, count)]


def window_layout(shape: Sequence[int], patch_size: Sequence[int], step_size: float = 0.5) -> list[Slices]:
    """All windows of a case, nnU-Net's, in its order.

    Args:
        shape: spatial, of the preprocessed image; an axis shorter than the patch counts as padded to it.
        patch_size: of the network; with one axis less than the shape each slice has windows of its own.
        step_size: share of the patch between windows.
    """
    sizes = tuple(patch_size)
    padded = [max(*pair) for pair in zip(shape[-len(sizes) :], sizes, strict=True)]
    steps = compute_steps_for_sliding_window(tuple(padded), sizes, step_size)
    within: list[Slices] = [(slice(None),)]
    if len(sizes) < len(shape):
        within = [(slice(None), position) for position in range(shape[0])]
    for size, starts in zip(sizes, steps, strict=True):
        within = [(*window, slice(at, at + size)) for window in within for at in starts]
    return within


@dataclass(frozen=True)
class Windows:
    """How a case is cut and put together again.

    Attributes:
        patch_size: of the network, 2 or 3 axes; with 2 each slice of a volume is a window of its own.
        step_size: share of the patch between windows.
        passes: see :func:`mirrored_passes`.
        heads: channels of the segmentation logits.
        target: finds the target in them.
        is_empty: says of a window ``(C, *patch)`` that there is nothing to see; such windows are left out. None runs
            all of them.
    """

    patch_size: tuple[int, ...]
    step_size: float
    passes: Sequence[Axes]
    heads: int
    target: TargetLabels
    is_empty: Callable[[Tensor], bool] | None = None

    def predict(
        self, backend: Backend, data: Tensor, at_once: int, results_device: torch.device, about: AboutCase = NOTHING
    ) -> tuple[Tensor, CaseClass]:
        """Predict a case.

        Args:
            backend: one network.
            data: preprocessed image ``(C, Z, Y, X)``.
            at_once: passes that go through the network together.
            results_device: where logits are summed.
            about: what else is known of the case, for heads that read whole cases.

        Returns:
            Segmentation logits ``(L, Z, Y, X)`` in half precision on ``results_device``, and the class.

        Raises:
            RuntimeError: the logits overflow half precision, or are no numbers.
        """
        padded, inside = pad_nd_image(data, self.patch_size, "constant", {"value": 0}, True, None)
        padded = padded.to(results_device)
        windows = self._worth_looking(padded)
        logits = torch.zeros((self.heads, *padded.shape[1:]), dtype=torch.half, device=results_device)
        weights = torch.zeros(padded.shape[1:], dtype=torch.half, device=results_device)
        gaussian = compute_gaussian(
            self.patch_size, sigma_scale=1 / 8, value_scaling_factor=10, device=results_device
        )  # fmt: skip
        spatial = tuple(inside[1:])
        record: ClassRecord | WholeCaseRecord
        if isinstance(backend.head, WholeCaseHead):
            record = WholeCaseRecord(backend.head, padded.shape[1:], results_device)
        else:
            record = ClassRecord(len(self.passes), backend.head.averages_mirrors)
        for window, mean in self._means(backend, padded, windows, at_once, record, spatial):
            logits[window] += mean.to(results_device).mul_(gaussian)
            weights[window[1:]] += gaussian
        if len(windows) < len(window_layout(padded.shape[1:], self.patch_size, self.step_size)):
            self._fill_uncovered(logits, weights)
        torch.div(logits, weights, out=logits)
        if not bool(torch.isfinite(logits).all()):
            raise RuntimeError(
                "The network's logits are not finite in half precision, in which they are summed. Try precision f32 "
                "or another checkpoint."
            )
        inside = (slice(None), *inside[1:])  # the first is of the image's channels
        if isinstance(record, ClassRecord):
            return logits[inside], record.result()
        columns = record.columns(data, spatial, about.spacing, about.covariates)
        return logits[inside], record.result(columns, len(self.passes))

    def blend(self, data: Tensor, weights: Sequence[float], look: Callable[[Tensor], Tensor]) -> Tensor:
        """One map of a case from a map of each window, averaged as logits are where windows overlap.

        Args:
            data: preprocessed image ``(C, Z, Y, X)``.
            weights: by which the map of each window is multiplied; windows of weight 0 are not looked at.
            look: gives the map ``(*patch)`` of a window ``(C, *patch)``.

        Returns:
            ``(Z, Y, X)``, float32, on the CPU.
        """
        padded, inside = pad_nd_image(data, self.patch_size, "constant", {"value": 0}, True, None)
        gaussian = compute_gaussian(
            self.patch_size, sigma_scale=1 / 8, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu")
        )
        total, norm = torch.zeros(padded.shape[1:]), torch.zeros(padded.shape[1:])
        for window, weight in zip(self._worth_looking(padded), weights, strict=True):
            norm[window[1:]] += gaussian
            if weight > 0:
                total[window[1:]] += look(padded[window]).float().cpu() * gaussian * weight
        return (total / norm.clamp_min(torch.finfo(norm.dtype).tiny))[inside[1:]]

    def _means(
        self,
        backend: Backend,
        data: Tensor,
        windows: Sequence[Slices],
        at_once: int,
        record: ClassRecord | WholeCaseRecord,
        inside: Sequence[slice],
    ) -> Iterator[tuple[Slices, Tensor]]:
        """Each window with its logits ``(L, *patch)``, averaged over the mirrored passes."""
        passes = [(window, axes) for window in windows for axes in self.passes]
        whole = isinstance(record, WholeCaseRecord)
        shares = window_shares(windows, self.patch_size, inside) if whole else []
        mean = torch.empty(0)
        done = 0
        for start in range(0, len(passes), at_once):
            batch = passes[start : start + at_once]
            inputs = torch.stack([_flip(data[window], axes).to(backend.device) for window, axes in batch])
            if isinstance(record, WholeCaseRecord):
                logits = _add_windows(record, backend, inputs, batch, shares, start, len(self.passes))
            else:
                classify = any(record.speaks(start + i) for i in range(len(batch)))
                logits, class_logits = backend(inputs, classify)
                record.add(class_logits, self.target.voxels(logits))
            for found, (window, axes) in zip(logits, batch, strict=True):
                if done % len(self.passes) == 0:
                    mean = found.float() if len(self.passes) == 1 else found.to(torch.float32, copy=True)
                else:
                    mean += _flip(found, axes)
                done += 1
                if done % len(self.passes) == 0:
                    yield window, mean.div_(len(self.passes))

    def _worth_looking(self, data: Tensor) -> list[Slices]:
        windows = window_layout(data.shape[1:], self.patch_size, self.step_size)
        if self.is_empty is None:
            return windows
        return [window for window in windows if not self.is_empty(data[window])] or windows

    def _fill_uncovered(self, logits: Tensor, weights: Tensor) -> None:
        """Background where no window was looked at."""
        uncovered = weights == 0
        weights[uncovered] = 1
        if self.target.has_regions:
            logits[:, uncovered] = -1.0
        else:
            logits[0, uncovered] = 1.0


def _add_windows(
    record: WholeCaseRecord,
    backend: Backend,
    inputs: Tensor,
    batch: Sequence[tuple[Slices, Axes]],
    shares: Sequence[Tensor],
    start: int,
    per_window: int,
) -> Tensor:
    """Run passes from number ``start`` on and note the plain ones; returns their segmentation logits."""
    plain = [n for n in range(len(batch)) if (start + n) % per_window == 0]
    if not plain:
        return backend(inputs, False)[0]
    of_window = [shares[(start + n) // per_window] for n in range(len(batch))]
    logits, pooled = backend(inputs, True, torch.stack(of_window).to(inputs.device))
    assert pooled is not None
    for n in plain:
        record.add(batch[n][0], pooled[n], logits[n], of_window[n])
    return logits


def _flip(image: Tensor, axes: Axes) -> Tensor:
    """``(C, ...)`` with spatial ``axes`` mirrored."""
    return image.flip([axis + 1 for axis in axes]) if axes else image


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
