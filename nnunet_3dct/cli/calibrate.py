"""``nnUNet3DCT_calibrate``: a temperature for the class probabilities, fitted to out-of-fold predictions."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.cli.tables import number, table
from nnunet_3dct.cli.trained_folds import add_model_flags, find_trained_folds
from nnunet_3dct.errors import listing


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
    from nnunet_3dct.evaluation.calibration import calibrate_folds
    from nnunet_3dct.formats.atomic import to_json
    from nnunet_3dct.formats.calibration import remove_calibration, write_calibration

    trained = find_trained_folds(args)
    result = calibrate_folds(trained)
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
