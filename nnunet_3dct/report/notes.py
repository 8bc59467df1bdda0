"""What a reader must know before the numbers."""

from __future__ import annotations

from pathlib import Path

from nnunet_3dct.errors import listing
from nnunet_3dct.formats.metrics_segmentation import EmptyList
from nnunet_3dct.report.cohort import Cohort
from nnunet_3dct.report.wording import title

SHOWN = 10
EMPTY: tuple[tuple[EmptyList, str], ...] = (
    ("empty_in_both", "empty in reference and prediction, no Dice"),
    ("empty_prediction", "nothing predicted, Dice 0 and no Hausdorff distance"),
    ("empty_reference", "predicted where the reference is empty, Dice 0 and no Hausdorff distance"),
)


def warnings(cohort: Cohort) -> list[str]:
    """What makes the results doubtful or incomplete."""
    found = [f"{case} could not be predicted: {reason}" for case, reason in cohort.provenance.failed.items()]
    reviewed = [case.name for case in cohort.cases if case.classified and case.classified.review]
    if reviewed:
        found.append(
            f"{_cases(len(reviewed))} marked for review, the class being uncertain or the case unusual: "
            f"{listing(reviewed, SHOWN)}"
        )
    if cohort.segmentation:
        for name in cohort.structures:
            for key, words in EMPTY:
                if cases := cohort.segmentation["structures"][name][key]:
                    found.append(f"{title(name)}: {words}: {listing(cases, SHOWN)}")
        if missing := cohort.segmentation["missing_predictions"]:
            found.append(f"{len(missing)} references without a prediction, left out: {listing(missing, SHOWN)}")
        if rounded := cohort.segmentation["rounded_to_whole_labels"]:
            files = [Path(path).name for path in rounded]
            found.append(f"Values rounded to whole labels in {listing(files, SHOWN)}")
    if cohort.not_predicted:
        left_out = listing(cohort.not_predicted, SHOWN)
        found.append(f"{len(cohort.not_predicted)} cases of the image folder have no prediction: {left_out}")
    if cohort.left_out:
        files = [f"{name} ({reason})" for name, reason in cohort.left_out.items()]
        found.append(f"Left out: {listing(files, SHOWN)}")
    return [*found, *_class_warnings(cohort)]


def _class_warnings(cohort: Cohort) -> list[str]:
    if cohort.classes is None:
        return []
    found = [f"{doubt[0].upper()}{doubt[1:]}" for doubt in cohort.classes.doubts]
    metrics = cohort.classes.metrics
    if metrics is None:
        return found
    found += metrics["warnings"]
    if metrics["auc_undefined_reason"]:
        found.append(f"No AUC: {metrics['auc_undefined_reason']}")
    if unknown := metrics["excluded_unknown_label"]:
        found.append(f"Left out of the class metrics, true class unknown: {listing(unknown, SHOWN)}")
    return found


def not_given(cohort: Cohort) -> list[str]:
    """What the report lacks."""
    options = cohort.options
    return [
        text
        for lacking, text in (
            (options.labels is None, "No references were given: no Dice, no reference outlines."),
            (options.images is None, "No images were given: outlines without slices."),
            (cohort.classes is None, "No class predictions were found: segmentation only."),
            (
                cohort.classes is not None and cohort.classes.metrics is None,
                "No class labels were given: no class metrics.",
            ),
        )
        if lacking
    ]


def _cases(number: int) -> str:
    return "1 case is" if number == 1 else f"{number} cases are"
