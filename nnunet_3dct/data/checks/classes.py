"""Class labels of a dataset: complete, and enough of every class for the folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nnunet_3dct.data.checks.findings import Finding, count, shown
from nnunet_3dct.data.splits import FOLDS, folds_without_class, read_splits
from nnunet_3dct.errors import ClassLabelsError, SettingsError
from nnunet_3dct.formats.class_labels import ClassLabels, check_class_labels, read_labels_in

SUBJECT = "classes"
UNEVEN = 10  # how many times as large as the smallest class the largest may be


def read_classes(folders: Sequence[Path]) -> tuple[ClassLabels | None, list[Finding]]:
    """The class labels of the first folder that has some, None with the reason where they cannot be used."""
    try:
        return read_labels_in(folders), []
    except ClassLabelsError as error:
        return None, [Finding(SUBJECT, "problem", str(error))]


def check_classes(
    labels: ClassLabels, training: Sequence[str], held_out: Sequence[str], num_classes: int | None
) -> Iterator[Finding]:
    """Problems of the class labels.

    Held-out cases may be missing altogether, since their labels can be kept elsewhere; when some are listed,
    all must be.
    """
    cases = list(training)
    if any(case in labels.by_case for case in held_out):
        cases += held_out
    for problem in check_class_labels(labels, cases, num_classes):
        yield Finding(SUBJECT, "problem", f"{labels.source.name}: {problem}")


def check_class_counts(labels: ClassLabels, training: Sequence[str], splits: Path) -> Iterator[Finding]:
    """Classes with too few training cases for the folds, uneven ones, and folds that miss a class.

    Args:
        labels: of the dataset.
        training: cases.
        splits: ``splits_final.json``, which need not exist.
    """
    counts = labels.counts(training)
    few = {k: n for k, n in enumerate(counts) if 0 < n < FOLDS}
    if few and len(counts) > 1:
        text = ", ".join(f"class {k} with {n}" for k, n in few.items())
        named = [case for case in training if labels.by_case.get(case) in few]
        yield Finding(
            SUBJECT,
            "warning",
            f"fewer training cases than nnU-Net's {FOLDS} folds: {text} ({shown(named)}). Some folds validate without "
            "the "
            "class, so its scores come from few cases. Add cases, join classes, or take fewer folds.",
        )
    present = [n for n in counts if n]
    if len(present) > 1 and max(present) >= UNEVEN * min(present):
        yield Finding(
            SUBJECT,
            "warning",
            f"uneven classes: {', '.join(map(str, counts))} training cases. Set NNUNETV2_MT_SAMPLER=balanced or "
            "NNUNETV2_MT_CLASS_WEIGHTS=balanced, and read macro-averaged scores.",
        )
    unknown = [case for case in training if labels.by_case.get(case, 0) < 0]
    if unknown:
        yield Finding(
            SUBJECT,
            "note" if len(unknown) <= 0.5 * len(training) else "warning",
            f"no known class (-1) for {count(len(unknown), 'training case')}, which train the segmentation alone: "
            f"{shown(unknown)}.",
        )
    if splits.is_file():
        try:
            folds = read_splits(splits)
        except SettingsError:  # told with the tables
            return
        for problem in folds_without_class(folds, labels.by_case, labels.num_classes):
            yield Finding(SUBJECT, "warning", f"{splits.name}: {problem}")
