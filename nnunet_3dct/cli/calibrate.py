"""``nnUNet3DCT_calibrate``: a temperature for the class probabilities, fitted to out-of-fold predictions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.cli.trained_folds import TrainedFolds, add_model_flags, find_trained_folds
from nnunet_3dct.errors import EvaluationError, NNUNet3DCTError, listing


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command, nnU-Net's where it has them."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_calibrate",
        description="Fits one temperature to the class predictions of the validation cases of all folds and stores it "
        "beside the model as calibration.json, which nnUNet3DCT_predict then applies. The predicted class stays what "
        "it is, only its probability changes. What this is worth is measured on cases that the temperature was not "
        "fitted to; where it makes the log loss no better, nothing is stored.",
    )
    add_model_flags(parser)
    parser.add_argument("--remove", action="store_true", help="delete the model's calibration.json and stop")
    parser.add_argument("--diagram", type=Path, metavar="FILE", help="also draw a reliability diagram (png, svg, pdf)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Fit, store and print; exit with code 1 and one message if that is impossible."""
    args = build_parser().parse_args(argv)
    try:
        _remove(args) if args.remove else _calibrate(args)
    except NNUNet3DCTError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _remove(args: argparse.Namespace) -> None:
    from nnunet_3dct.formats.calibration import CALIBRATION_NAME
    from nnunet_3dct.paths import find_model_folder

    path = find_model_folder(args.d, args.tr, args.p, args.c) / CALIBRATION_NAME
    there = path.is_file()
    path.unlink(missing_ok=True)
    print(f"{path}: {'removed' if there else 'there was none'}")


def _calibrate(args: argparse.Namespace) -> None:
    import numpy as np

    from nnunet_3dct.evaluation.calibration import HIGHEST, LOWEST, calibrate
    from nnunet_3dct.evaluation.classification import classified_cases
    from nnunet_3dct.formats.atomic import to_json, write_json
    from nnunet_3dct.formats.calibration import CALIBRATION_NAME

    found = find_trained_folds(args)
    fold_of = {case: fold.fold for fold in found.folds for case in fold.predictions}
    predictions = {case: p for fold in found.folds for case, p in fold.predictions.items()}
    cases = classified_cases(predictions, found.labels, found.class_names)
    if cases.probabilities is None:
        raise EvaluationError(
            f"{found.model}: expected probabilities of every validation case, found none of "
            f"{listing(cases.without_probabilities or cases.cases, 5)}."
        )
    logits = np.log(np.clip(cases.probabilities, 1e-12, None))
    result = calibrate(logits, cases.truth, np.array([fold_of[case] for case in cases.cases]))
    result = {
        "n_cases": len(cases.cases),
        "folds": [fold.fold for fold in found.folds],
        "head_weights": _head_weights(found),
        **result,
        "warnings": [*found.warnings, *_doubts(result, len(cases.cases), (LOWEST, HIGHEST))],
    }
    path = found.model / CALIBRATION_NAME
    if result["helps"]:
        write_json(result, path)
    else:
        path.unlink(missing_ok=True)
    if args.diagram:
        from nnunet_3dct.evaluation.reliability_diagram import draw_reliability

        draw_reliability(result, args.diagram)
    if args.json:
        print(to_json(result))
        return
    print(f"{found.model.name}: {format_result(result)}")
    print(f"\nwritten to {path}" if result["helps"] else "\nnot better: no calibration stored")


def _head_weights(found: TrainedFolds) -> dict[str, str]:
    """Fold -> fingerprint of its head, which the predictor compares with the network that it loads."""
    weights = {}
    for fold in found.folds:
        if fold.head_weights is None:
            raise EvaluationError(
                f"{fold.folder}: expected class files that name the head's weights, found none (an earlier version "
                "wrote them). Run the validation anew: nnUNetv2_train ... --val."
            )
        weights[str(fold.fold)] = fold.head_weights
    return weights


def _doubts(result: dict[str, Any], cases: int, bounds: tuple[float, float]) -> list[str]:
    doubts = []
    if result["after"] is None:
        doubts.append("too few cases to measure what the temperature is worth")
    if cases < 50:
        doubts.append(f"{cases} cases are few for a calibration")
    if not bounds[0] * 1.01 < result["temperature"] < bounds[1] * 0.99:
        doubts.append("the temperature lies at the end of its range: the network hardly tells the classes apart, or is "
                      "right in every case")  # fmt: skip
    return doubts


def format_result(result: dict[str, Any]) -> str:
    """Lay out what the temperature changes, and what a threshold for review would do."""
    names = {
        "log_loss": "log loss",
        "brier_score": "Brier score (0 best, 2 worst)",
        "expected_calibration_error": "expected calibration error",
    }
    rows = [
        [name, number(result["before"][key]), number(result["after"] and result["after"][key])]
        for key, name in names.items()
    ]
    review = [
        [f"{row['threshold']:.1f}", f"{row['share_for_review']:.0%}", number(row["accuracy_of_rest"])]
        for row in result["review"]
    ]
    parts = [
        f"temperature {result['temperature']:.3f} from {result['n_cases']} cases of fold {listing(result['folds'])}",
        table(["on cases not fitted to", "before", "after"], rows),
        table(["--abstain", "cases for review", "accuracy of the others"], review),
    ]
    if result["warnings"]:
        parts.append("\n".join(f"warning: {warning}" for warning in result["warnings"]))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
