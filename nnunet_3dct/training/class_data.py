"""Which cases a multi-task training sees, and what their classes count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nnunet_3dct.data.splits import SPLITS_FILE, stratified_splits, write_splits
from nnunet_3dct.errors import listing
from nnunet_3dct.formats.class_labels import UNKNOWN, ClassLabels
from nnunet_3dct.settings import Settings
from nnunet_3dct.training.class_loss import Weights


@dataclass(frozen=True)
class FoldLabels:
    """Class of every case of a fold, by its part; -1 for unknown."""

    training: dict[str, int]
    validation: dict[str, int]

    @classmethod
    def of(cls, training: Iterable[str], validation: Iterable[str], by_case: Mapping[str, int]) -> FoldLabels:
        """Look up the classes of nnU-Net's two lists of cases."""
        parts = ({str(case): by_case[case] for case in sorted(cases)} for cases in (training, validation))
        return cls(*parts)

    def by_part(self) -> dict[str, dict[str, int]]:
        """``training`` and ``validation``, as checkpoints hold them."""
        return asdict(self)

    def counts(self, num_classes: int) -> dict[str, list[int]]:
        """Number of cases in each class, by part."""
        return {
            part: [sum(label == k for label in classes.values()) for k in range(num_classes)]
            for part, classes in self.by_part().items()
        }


def known(classes: Mapping[str, int]) -> list[str]:
    """Cases whose class is known."""
    return [case for case, label in classes.items() if label != UNKNOWN]


def write_missing_splits(preprocessed: Path, cases: Sequence[str], labels: ClassLabels) -> str | None:
    """Stratify by class where nnU-Net would draw splits at random: where none exist yet.

    Args:
        preprocessed: folder of the dataset.
        cases: all of it.
        labels: class and patient of each.

    Returns:
        A line for the log if splits were written.
    """
    path = preprocessed / SPLITS_FILE
    if path.is_file():
        return None
    splits = stratified_splits(cases, labels.by_case, labels.groups, dataset=preprocessed.name)
    write_splits(splits, path, overwrite=True)  # of another fold that started with us: the same splits
    return f"No {SPLITS_FILE} yet: wrote splits stratified by class to {path}."


@dataclass(frozen=True)
class ClassWeighting:
    """Which class weights are used; each ``"none"``, ``"balanced"`` or one weight for each class.

    Attributes:
        patches: in the class loss of training patches.
        volumes: where the head is fitted to whole volumes, each of which counts once whatever the sampler does.
        remark: for the log, None if there is nothing to say.
    """

    patches: Weights
    volumes: Weights
    remark: str | None = None


def choose_class_weights(settings: Settings, default: str) -> ClassWeighting:
    """Class weights that do not repeat what the sampler does.

    Args:
        settings: weights that were asked for, and the sampler.
        default: the trainer's own weights.
    """
    asked = settings.class_weights
    if settings.sampler != "balanced":
        return ClassWeighting(asked or default, asked or default)
    if asked is None:
        remark = None
        if default != "none":
            remark = f"Class weights: none in place of the trainer's {default} ones, since the sampler is balanced."
        return ClassWeighting("none", "balanced", remark)
    remark = None
    if asked != "none":
        remark = (
            "WARNING: NNUNETV2_MT_SAMPLER=balanced shows all classes equally often, and NNUNETV2_MT_CLASS_WEIGHTS "
            "weighs them on top of that: rare classes count twice. Leave one of them out unless this is meant."
        )
    return ClassWeighting(asked, asked, remark)


def missing_classes(fold: int | str, counts: Mapping[str, Sequence[int]]) -> list[str]:
    """A warning for each part of a fold that lacks a class.

    Args:
        fold: for the message.
        counts: part -> number of cases in each class.
    """
    absent = {part: [k for k, n in enumerate(of_class) if n == 0] for part, of_class in counts.items()}
    return [
        f"WARNING: fold {fold} has no {part} case of class {listing(classes)}. "
        "nnUNet3DCT_splits spreads the classes over the folds; stage 1 has to be trained on them too."
        for part, classes in absent.items()
        if classes
    ]


def balanced_identifiers(cases: Sequence[str], classes: Mapping[str, int], repeats: int = 20) -> list[str]:
    """Repeat identifiers so that drawing uniformly from the result sees each class equally often.

    Cases of unknown class keep the share that they have in ``cases``.

    Args:
        cases: identifiers of the training fold.
        classes: case -> class, -1 for unknown.
        repeats: how often a case of the largest class stands in the result; higher is finer.
    """
    groups: dict[int, list[str]] = {}
    for case in cases:
        groups.setdefault(classes.get(case, UNKNOWN), []).append(case)
    of_class = {k: group for k, group in groups.items() if k != UNKNOWN}
    if not of_class:
        return list(cases)
    length = repeats * max(len(group) for group in of_class.values())
    drawn = [case for group in of_class.values() for case in np.resize(group, length).tolist()]
    unknown = groups.get(UNKNOWN, [])
    if unknown:
        share = len(unknown) / (len(cases) - len(unknown))
        drawn += np.resize(unknown, round(share * len(drawn))).tolist()
    return drawn
