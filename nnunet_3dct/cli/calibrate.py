"""``nnUNet3DCT_calibrate``: a temperature for the class probabilities, fitted to out-of-fold predictions."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.cli.trained_folds import TrainedFolds, add_model_flags, find_trained_folds
from nnunet_3dct.errors import EvaluationError, listing

if TYPE_CHECKING:
    from nnunet_3dct.formats.calibration import Calibration


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command, nnU-Net's where it has them."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_calibrate",
        description="Fits one temperature to the class predictions of the validation cases of all folds and stores it "
        "beside the model as calibration.json, which nnUNet3DCT_predict then applies; a copy in the model's "
        "dataset.json goes along when nnUNetv2_export_model_to_zip packs the model. The predicted class stays what it "
        "is, only its probability changes. What this is worth is measured on cases that the temperature was not fitted "
        "to; where it makes the log loss no better, nothing is stored.",
    )
    add_model_flags(parser)
    parser.add_argument("--remove", action="store_true", help="delete the model's calibration and stop")
    parser.add_argument("--diagram", type=Path, metavar="FILE", help="also draw a reliability diagram (png, svg, pdf)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Fit, store and print."""
    run_command(build_parser(), lambda args: _remove(args) if args.remove else _calibrate(args), argv)


def _remove(args: argparse.Namespace) -> None:
    from nnunet_3dct.formats.calibration import remove_calibration
    from nnunet_3dct.paths import find_model_folder

    model = find_model_folder(args.d, args.tr, args.p, args.c)
    there = remove_calibration(model)
    print(f"{model}: {'calibration removed' if there else 'there was no calibration'}")


def _calibrate(args: argparse.Namespace) -> None:
    from nnunet_3dct.formats.atomic import to_json
    from nnunet_3dct.formats.calibration import remove_calibration, write_calibration

    trained = find_trained_folds(args)
    result = fit_calibration(trained)
    helps = result["helps"]
    if helps:
        path = write_calibration(result, trained.model)
    else:
        remove_calibration(trained.model)
    if args.diagram:
        from nnunet_3dct.evaluation.reliability_diagram import draw_reliability

        draw_reliability(result, args.diagram)
    if args.json:
        print(to_json(result))
        return
    print(f"{trained.model.name}: {format_result(result)}")
    print(f"\nclasses from {trained.labels.source}")
    print(f"written to {path}" if helps else "not better: no calibration stored")


def fit_calibration(trained: TrainedFolds) -> Calibration:
    """Fit a temperature to the class predictions of the folds' validation cases.

    Raises:
        EvaluationError: a case has no probabilities, or its class file does not name the weights.
    """
    import numpy as np

    from nnunet_3dct.evaluation.calibration import HIGHEST, LOWEST, calibrate
    from nnunet_3dct.evaluation.classification import classified_cases

    fold_of = {case: fold.fold for fold in trained.folds for case in fold.predictions}
    predictions = {case: p for fold in trained.folds for case, p in fold.predictions.items()}
    cases = classified_cases(predictions, trained.labels, trained.class_names)
    if cases.probabilities is None:
        raise EvaluationError(
            f"{trained.model}: expected probabilities of every validation case, found none of "
            f"{listing(cases.without_probabilities or cases.cases, 5)}."
        )
    logits = np.log(np.clip(cases.probabilities, 1e-12, None))
    result = calibrate(logits, cases.truth, np.array([fold_of[case] for case in cases.cases]))
    return {
        "n_cases": len(cases.cases),
        "folds": [fold.fold for fold in trained.folds],
        "head_weights": _head_weights(trained),
        "temperature": result["temperature"],
        "before": result["before"],
        "after": result["after"],
        "helps": result["helps"],
        "review": result["review"],
        "warnings": [*trained.warnings, *_doubts(result, len(cases.cases), (LOWEST, HIGHEST))],
    }


def _head_weights(trained: TrainedFolds) -> dict[str, str]:
    """Fold -> fingerprint of its head, which the predictor compares with the network that it loads."""
    weights = {}
    for fold in trained.folds:
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


def format_result(result: Mapping[str, Any]) -> str:
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
