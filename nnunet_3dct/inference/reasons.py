"""Which features spoke for the class of a case, in words.

The class margin of a linear layer is a sum over its columns, so each column has its share. Columns of the network say
little to a reader; those of one stage are put together. What is measured of the image is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_3dct.formats.class_files import Reason
from nnunet_3dct.networks.case_layout import COVARIATES, MEASURED
from nnunet_3dct.networks.heads.case import CaseHead

SHOWN = 6
_SIZES = {"volume": ("larger", "smaller"), "volume of all parts": ("larger in all parts", "smaller in all parts"),
          "surface": ("larger surface", "smaller surface"), "sphericity": ("rounder", "less round"),
          "elongation": ("less elongated", "more elongated"), "parts": ("in more parts", "in fewer parts"),
          "certainty": ("more certain outline", "less certain outline")}  # fmt: skip
_LOGARITHMS = {"volume": "ml", "volume of all parts": "ml", "surface": "cm2", "longest axis": "mm",
               "middle axis": "mm", "shortest axis": "mm"}  # fmt: skip
_INTENSITIES = ("mean", "percentile")
_SPREADS = ("spread", "standard deviation", "gradient", "coarse structure", "fine structure")


@dataclass(frozen=True)
class Intensities:
    """How image intensities were normalised, to say them in HU.

    Attributes:
        scale, offset: HU of one channel are ``x * scale + offset``.
    """

    scale: float
    offset: float

    @classmethod
    def of(cls, schemes: Sequence[str], statistics: Mapping[str, Mapping[str, float]]) -> Intensities | None:
        """For a plan with a single channel that is CT; None for any other."""
        if list(schemes) != ["CTNormalization"]:
            return None
        return cls(max(statistics["0"]["std"], 1e-8), statistics["0"]["mean"])


def reasons(
    heads: Sequence[CaseHead], columns: Sequence[Tensor], label: int, intensities: Intensities | None = None
) -> list[Reason]:
    """What speaks for and against a class, the weightiest first.

    Args:
        heads: of the folds, which are averaged.
        columns: features of the case, ``(width,)`` for each fold.
        label: the class.
        intensities: for HU.
    """
    layout = heads[0].layout
    alike = [number for number, head in enumerate(heads) if head.layout.names == layout.names]  # as covariates differ
    heads, columns = [heads[number] for number in alike], [columns[number] for number in alike]
    device = heads[0].classifier.weight.device
    each = [head.contributions(row.to(device), label).cpu() for head, row in zip(heads, columns, strict=True)]
    added = torch.stack(each).double().mean(0)
    total = float(added.abs().sum())
    if total == 0:
        return []
    found: list[Reason] = []
    for block, numbers in layout.blocks.items():
        if block in (*MEASURED, COVARIATES):
            for number in numbers:
                value = float(torch.stack([row[number] for row in columns]).mean())
                typical = float(torch.stack([head.norm.mean[number].cpu() for head in heads]).mean())
                found.append(_measured(layout.names[number], value, typical, float(added[number]), total, intensities))
        else:
            part = float(added[list(numbers)].sum())
            found.append(
                {
                    "feature": block,
                    "words": f"texture in the network's {block}",
                    "speaks": _side(part),
                    "share": abs(part) / total,
                }
            )
    found = [reason for reason in found if reason["share"] > 0]
    return sorted(found, key=lambda reason: -reason["share"])[:SHOWN]


def _side(part: float) -> str:
    return "for" if part > 0 else "against"


def _measured(
    name: str, value: float, typical: float, part: float, total: float, intensities: Intensities | None
) -> Reason:
    higher = value > typical
    reason: Reason = {
        "feature": name,
        "words": _words(name, higher, intensities is not None),
        "speaks": _side(part),
        "share": abs(part) / total,
    }
    if value != value:
        return reason
    unit = _LOGARITHMS.get(name, "")
    if unit:
        value, typical = math.exp(value), math.exp(typical)
    elif intensities is not None and name.startswith(_INTENSITIES):
        value, typical = (number * intensities.scale + intensities.offset for number in (value, typical))
        unit = "HU"
    elif intensities is not None and name.startswith(_SPREADS):
        value, typical, unit = value * intensities.scale, typical * intensities.scale, "HU"
    reason["value"], reason["typical"] = value, typical
    if unit:
        reason["unit"] = unit
    return reason


def _words(name: str, higher: bool, is_ct: bool) -> str:
    if name in _SIZES:
        return _SIZES[name][0 if higher else 1]
    if name.startswith("mean in the "):
        words = ("denser", "less dense") if is_ct else ("brighter", "darker")
        return f"{words[0 if higher else 1]} {name.removeprefix('mean in the ')}"
    if name.startswith("spread in the "):
        return f"{'more' if higher else 'less'} uneven {name.removeprefix('spread in the ')}"
    if name.endswith("axis"):
        return f"longer {name}" if higher else f"shorter {name}"
    return f"{'higher' if higher else 'lower'} {name}"
