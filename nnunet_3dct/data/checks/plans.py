"""What nnU-Net has planned for a dataset: voxel size, patch and batch of each configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_3dct.data.checks.findings import Finding
from nnunet_3dct.errors import SettingsError
from nnunet_3dct.formats.atomic import read_json

SUBJECT = "plan"
PLANS_GLOB = "*Plans*.json"
ENOUGH = 8  # cases in a batch


@dataclass(frozen=True)
class Configuration:
    """One configuration of plans.

    Attributes:
        plans: their name, such as ``nnUNetPlans``.
        name: such as ``3d_fullres``.
        patch: voxels along each planned axis.
        batch: patches in a training step.
        spacing: planned voxel size in mm along the same axes; a 2D configuration has two.
        axes: axis of the image (z, y, x) that each of nnU-Net's three planned axes is.
        architecture: of the network, as nnU-Net's plans name it.
    """

    plans: str
    name: str
    patch: tuple[int, ...]
    batch: int
    spacing: tuple[float, ...]
    axes: tuple[int, ...]
    architecture: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def title(self) -> str:
        """Name for a text."""
        return f"{self.name} of {self.plans}"

    def spacing_of_image_axes(self, spacing: Sequence[float]) -> tuple[float, ...]:
        """Planned voxel size along the axes (z, y, x) of an image, whose own is kept where nothing is resampled."""
        result = list(spacing)
        for axis, size in zip(self.axes[len(self.axes) - len(self.spacing) :], self.spacing, strict=True):
            result[axis] = size
        return tuple(result)

    def patch_of_image_axes(self) -> tuple[int, ...]:
        """Patch along the axes (z, y, x) of an image; 1 along the axis across a 2D patch."""
        result = [1, 1, 1]
        for axis, size in zip(self.axes[len(self.axes) - len(self.patch) :], self.patch, strict=True):
            result[axis] = size
        return tuple(result)


def find_configurations(preprocessed: Path | None) -> tuple[list[Configuration], list[Finding]]:
    """Configurations of every plans file of a preprocessed dataset, and what is wrong with the files.

    Args:
        preprocessed: folder ``<nnUNet_preprocessed>/<dataset>``, None for none.
    """
    found: list[Configuration] = []
    findings = []
    for path in sorted(preprocessed.glob(PLANS_GLOB)) if preprocessed is not None and preprocessed.is_dir() else []:
        try:
            content = read_json(path, "Plans", SettingsError, "Plan the dataset again.")
            named = content["configurations"]
            read = [_configuration(path.stem, content, name, _resolved(named, name)) for name in named]
        except (SettingsError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            text = str(error) if isinstance(error, SettingsError) else f"{path}: no plans of nnU-Net ({error!r})."
            findings.append(Finding(SUBJECT, "warning", text))
            continue
        for configuration in read:
            if configuration is not None and not any(_same(configuration, other) for other in found):
                found.append(configuration)
    return found, findings


def check_batch_sizes(configurations: Sequence[Configuration], training_cases: int) -> Iterator[Finding]:
    """Batches too small for the class head, whose loss sees one class a case."""
    small = [c for c in configurations if c.batch < ENOUGH]
    if small:
        yield Finding(
            SUBJECT,
            "warning",
            f"batch size below {ENOUGH}: {', '.join(f'{c.batch} in {c.title}' for c in small)}. With so few cases a "
            "step the "
            "class head sees few of each class and learns badly. Plan again with more memory, "
            "`nnUNetv2_plan_experiment "
            "-d DATASET -gpu_memory_target GB -overwrite_plans_name NAME`, or make the patch smaller: in the plans "
            "file add "
            f'a configuration {{"inherits_from": "{small[0].name}", "batch_size": {ENOUGH}, "patch_size": [...]}} and '
            "train "
            "with its name. Heads that are fitted on whole cases after the training do not depend on it.",
        )
    large = [c for c in configurations if c.batch > training_cases > 0 and len(c.patch) == 3]
    if large:
        yield Finding(
            SUBJECT,
            "note",
            f"batch size above the number of training cases ({training_cases}): "
            f"{', '.join(f'{c.batch} in {c.title}' for c in large)}.",
        )


def _resolved(named: dict[str, Any], name: str) -> dict[str, Any]:
    """Entries of a configuration with those that it inherits."""
    own = named[name]
    parent = _resolved(named, own["inherits_from"]) if "inherits_from" in own else {}
    return {**parent, **own}


def _configuration(plans: str, content: dict[str, Any], name: str, entries: dict[str, Any]) -> Configuration | None:
    if not {"patch_size", "batch_size", "spacing"} <= entries.keys():
        return None
    return Configuration(
        str(content.get("plans_name", plans)),
        name,
        tuple(int(size) for size in entries["patch_size"]),
        int(entries["batch_size"]),
        tuple(float(size) for size in entries["spacing"]),
        tuple(int(axis) for axis in content.get("transpose_forward", (0, 1, 2))),
        entries.get("architecture", {}),
    )


def _same(one: Configuration, other: Configuration) -> bool:
    """Whether two plan the same, as a cascade and the configuration that it inherits from."""
    return (one.plans, one.patch, one.batch, one.spacing) == (other.plans, other.patch, other.batch, other.spacing)
