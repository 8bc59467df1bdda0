"""Memory and disk that a dataset's plans ask for, against what the machine has."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunet_3dct.data.checks.plans import Configuration, find_configurations
from nnunet_3dct.data.installation import Finding
from nnunet_3dct.data.raw_cases import find_raw_cases
from nnunet_3dct.data.resources import GIB, free_bytes, memory_of_machine
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.dataset_json import num_channels, read_dataset_json
from nnunet_3dct.formats.geometry import Geometry, read_geometry

# what nnU-Net's planner measured: elements of feature maps of one patch that fill 8 GB with a batch of this size
REFERENCE = {3: (560_000_000, 2), 2: (85_000_000, 12)}
REFERENCE_GB = 8.0


def check_planned_memory(raw: Path, preprocessed: Path | None) -> list[Finding]:
    """Memory for the planned patch and batch of each configuration, and disk for the preprocessed data.

    Args:
        raw: folder of the raw dataset.
        preprocessed: of the same dataset, with the plans; None where the variable is not set.
    """
    configurations, unreadable = find_configurations(preprocessed)
    findings = [Finding("plans", False, finding.text) for finding in unreadable]
    description, _ = read_dataset_json(raw)
    if not configurations or description is None:
        message = f"{raw.name} has no plans yet: run `nnUNetv2_plan_and_preprocess -d {raw.name}`, then ask again."
        return [*findings, Finding("planned memory", True, message, warning=True)]
    device, total = _device_memory()
    for configuration in configurations:
        name = f"memory for {configuration.title}"
        if not configuration.architecture:
            findings.append(Finding(name, True, "unknown, since the plans name no architecture", warning=True))
            continue
        needed = estimated_bytes(configuration, num_channels(description), len(description["labels"]))
        patch = " x ".join(map(str, configuration.patch))
        text = f"about {needed / GIB:.1f} GiB for {configuration.batch} patches of {patch} voxels"
        if total is None:
            findings.append(Finding(name, True, text))
        elif needed > total:
            findings.append(
                Finding(
                    name,
                    False,
                    f"{text}, but {device} has {total / GIB:.1f} GiB. Plan for it: `nnUNetv2_plan_experiment -d "
                    f"{raw.name} "
                    f"-gpu_memory_target {max(1, math.floor(0.9 * total / GIB))} -overwrite_plans_name NAME`.",
                )
            )
        else:
            findings.append(Finding(name, True, f"{text}; {device} has {total / GIB:.1f} GiB"))
    if preprocessed is not None:
        findings += _disk(raw, description, configurations, preprocessed)
    return findings


def estimated_bytes(configuration: Configuration, channels: int, labels: int) -> float:
    """Memory of a training step on a GPU, as nnU-Net's planner estimates it for its own U-Nets.

    It scales what the planner measured by the elements of all feature maps; the class head adds little.

    Args:
        configuration: with its architecture.
        channels: of the images.
        labels: segmentation channels.
    """
    from nnunet_3dct.upstream import get_network_from_plans

    kind = configuration.architecture
    network: Any = get_network_from_plans(
        kind["network_class_name"], kind["arch_kwargs"], kind["_kw_requires_import"], channels, labels, allow_init=False
    )
    elements = float(network.compute_conv_feature_map_size(configuration.patch))
    reference, batch = REFERENCE[len(configuration.patch)]
    return elements * configuration.batch / (reference * batch) * REFERENCE_GB * 1e9


def _device_memory() -> tuple[str, int | None]:
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0), int(torch.cuda.mem_get_info(0)[1])
    return "the machine", memory_of_machine()[0]


def _disk(
    raw: Path, description: dict[str, Any], configurations: Sequence[Configuration], preprocessed: Path
) -> Iterator[Finding]:
    """Room for the preprocessed cases, uncompressed; nnU-Net's files are somewhat smaller."""
    grids: list[Geometry] = []
    for case in find_raw_cases(raw, description).training:
        try:
            grids.append(read_geometry(case.images[0]))
        except (ImageError, IndexError):
            continue
    voxel_bytes = 4 * num_channels(description) + 1
    for configuration in configurations:
        voxels = sum(_planned_voxels(grid, configuration) for grid in grids if len(grid.size) == 3)
        needed, free = voxels * voxel_bytes, free_bytes(preprocessed)
        text = f"at most {needed / GIB:.1f} GiB for preprocessed cases, {free / GIB:.0f} GiB are free"
        there = any(preprocessed.glob(f"*_{configuration.name}/*"))
        little = needed > free and not there
        yield Finding(f"disk for {configuration.title}", not little, text + ("; free some" if little else ""))


def _planned_voxels(grid: Geometry, configuration: Configuration) -> float:
    spacing = tuple(grid.spacing[::-1])
    planned = configuration.spacing_of_image_axes(spacing)
    return math.prod(n * ours / theirs for n, ours, theirs in zip(grid.size[::-1], spacing, planned, strict=True))
