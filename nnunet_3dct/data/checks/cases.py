"""All cases of a dataset after each was checked and measured: what the subjects compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnunet_3dct.data.checks.case import CaseCheck
from nnunet_3dct.data.checks.measured import Measured
from nnunet_3dct.data.raw_cases import RawCase

TRAINING, VALIDATION, TEST = PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class CheckedCase:
    """One case: the part of the dataset it is in, its files, and what was found in them."""

    part: str
    files: RawCase
    check: CaseCheck

    @property
    def case(self) -> str:
        """Identifier."""
        return self.files.case


@dataclass(frozen=True)
class CheckedCases:
    """The cases of a dataset.

    Attributes:
        all: training cases first.
        description: content of dataset.json.
        reader: name of nnU-Net's reader, None where it is not known.
        structures: label -> name, without background and ignore label.
        target: labels that carry the class.
    """

    all: Sequence[CheckedCase]
    description: dict[str, Any]
    reader: str | None
    structures: dict[int, str] = field(default_factory=dict)
    target: tuple[int, ...] = ()

    @property
    def training(self) -> list[CheckedCase]:
        """Those that nnU-Net trains with."""
        return [case for case in self.all if case.part == TRAINING]

    def measured(self, training: bool = False) -> Iterator[tuple[CheckedCase, Measured]]:
        """Cases that could be measured, of all parts or of training alone."""
        for case in self.training if training else self.all:
            if case.check.measured is not None:
                yield case, case.check.measured

    @property
    def is_ct(self) -> bool:
        """Whether the first channel is named CT, for which nnU-Net takes intensities as they are."""
        names = self.description.get("channel_names")
        return isinstance(names, dict) and str(names.get("0", "")).casefold() == "ct"
