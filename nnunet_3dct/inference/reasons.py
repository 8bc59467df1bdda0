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

from nnunet_3dct.formats.class_reasons import Reason
from nnunet_3dct.networks.case_layout import COVARIATES, MEASURED
from nnunet_3dct.networks.heads.case import CaseHead

SHOWN = 6
SIZE = "size"  # block of the network's own view of the target's size
# name of a measurement -> words where it is higher and where it is lower than in the training cases
_WORDS = {"volume": ("larger", "smaller"), "volume of all parts": ("larger in all parts", "smaller in all parts"),
          "surface": ("larger surface", "smaller surface"), "sphericity": ("rounder", "less round"),
          "elongation": ("less elongated", "more elongated"), "parts": ("in more parts", "in fewer parts"),
          "certainty": ("more certain outline", "less certain outline"),
          "longest axis": ("longer longest axis", "shorter longest axis"),
          "middle axis": ("longer middle axis", "shorter middle axis"),
          "shortest axis": ("longer shortest axis", "shorter shortest axis"),
          "standard deviation": ("more uneven inside", "less uneven inside"),
          "gradient inside": ("stronger edges inside", "weaker edges inside"),
          "gradient at the edge": ("sharper edge", "softer edge"),
          "coarse structure": ("more coarse structure", "less coarse structure"),
          "fine structure": ("more fine structure", "less fine structure")}  # fmt: skip
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
    alike = [number for number, head in enumerate(heads) if head.layout.names == layout.names]  # covariates may differ
    heads, columns = [heads[number] for number in alike], [columns[number].cpu() for number in alike]
    device = heads[0].classifier.weight.device
    each = [head.contributions(row.to(device), label).cpu() for head, row in zip(heads, columns, strict=True)]
    added = torch.stack(each).double().mean(0)
    total = float(added.abs().sum())
    if total == 0:
        return []
    usual = [head.norm.mean.double().cpu() for head in heads]
    value, typical = torch.stack(columns).double().nanmean(0), torch.stack(usual).mean(0)
    found: list[Reason] = []
    for block, numbers in layout.blocks.items():
        if block not in (*MEASURED, COVARIATES):
            part = float(added[list(numbers)].sum())
            words = _of_network(block, bool(value[numbers[0]] > typical[numbers[0]]))
            found.append({"feature": block, "words": words, "speaks": _side(part), "share": abs(part) / total})
            continue
        for number in numbers:
            name, part = layout.names[number], float(added[number])
            reason: Reason = {"feature": name, "words": "", "speaks": _side(part), "share": abs(part) / total}
            if part == 0:
                continue
            if block == COVARIATES:
                _describe_covariate(reason, heads, [(float(x[number]), float(t[number]))
                                                    for x, t in zip(columns, usual, strict=True)])  # fmt: skip
            else:
                _describe_measured(reason, float(value[number]), float(typical[number]), intensities)
            found.append(reason)
    found = [reason for reason in found if reason["share"] > 0]
    return sorted(found, key=lambda reason: -reason["share"])[:SHOWN]


def _side(part: float) -> str:
    return "for" if part > 0 else "against"


def _of_network(block: str, higher: bool) -> str:
    if block == SIZE:
        return f"{'larger' if higher else 'smaller'}, as the network sees it"
    stage = block.removesuffix(" of the image")
    return f"texture in the network's {stage}" if stage == block else f"texture of the image in the network's {stage}"


def _describe_covariate(reason: Reason, heads: Sequence[CaseHead], of_folds: Sequence[tuple[float, float]]) -> None:
    """In the covariate's own unit: every fold has its own mean and spread.

    Args:
        reason: changed.
        heads: of the folds.
        of_folds: for each the number of the case and the mean of the training cases, as encoded.
    """
    said = [
        head.encoding.in_words(reason["feature"], number, usual)
        for head, (number, usual) in zip(heads, of_folds, strict=True)
        if head.encoding is not None
    ]
    reason["words"] = said[0].words
    values = [(one.value, one.typical) for one in said if one.value is not None and one.typical is not None]
    if values:
        reason["value"], reason["typical"] = (sum(each) / len(values) for each in zip(*values, strict=True))


def _describe_measured(reason: Reason, value: float, typical: float, intensities: Intensities | None) -> None:
    name, _, of = reason["feature"].partition(" of channel ")
    words = _words(name, value > typical, intensities is not None)
    reason["words"] = f"{words} (channel {of})" if of else words
    unit = _LOGARITHMS.get(name, "")
    if unit:
        value, typical = math.exp(value), math.exp(typical)
    elif name == "parts":
        value, typical = math.expm1(value), math.expm1(typical)
    elif intensities is not None and name.startswith(_INTENSITIES):
        value, typical = (number * intensities.scale + intensities.offset for number in (value, typical))
        unit = "HU"
    elif intensities is not None and name.startswith(_SPREADS):
        value, typical, unit = value * intensities.scale, typical * intensities.scale, "HU"
    reason["value"], reason["typical"] = value, typical
    if unit:
        reason["unit"] = unit


def _words(name: str, higher: bool, is_ct: bool) -> str:
    if name in _WORDS:
        return _WORDS[name][0 if higher else 1]
    more = ("denser" if is_ct else "brighter") if higher else ("less dense" if is_ct else "darker")
    if name == "mean":
        return f"{more} on average"
    if name.startswith("mean in the "):
        return f"{more} {name.removeprefix('mean in the ')}"
    if name.startswith("percentile "):
        return f"{more} ({name})"
    if name.startswith("spread in the "):
        return f"{'more' if higher else 'less'} uneven {name.removeprefix('spread in the ')}"
    return f"{'higher' if higher else 'lower'} {name}"
