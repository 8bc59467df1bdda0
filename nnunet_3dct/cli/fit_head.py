"""``nnUNet3DCT_fit_head``: the class for a trained segmentation model, without training its network."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_3dct.cli.model_flags import add_device, add_folds, add_model, add_target_labels
from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.errors import SettingsError

if TYPE_CHECKING:  # loads torch
    from nnunet_3dct.training.fitted_model import HeadFit

STOCK = "nnUNetTrainer"


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command, nnU-Net's where it has them."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_fit_head",
        description="Fits a classification head to a trained segmentation model (stock nnU-Net's or any trainer's with "
        "nnU-Net's own network): whole cases, features and classifier chosen by cross-validation among the training "
        "cases. Writes stage-2 checkpoints that nnUNet3DCT_predict takes, the out-of-fold estimate and the "
        "calibration.",
    )
    add_model(parser, STOCK, " of the segmentation")
    add_folds(parser, "folds. Default: all that are trained")
    parser.add_argument(
        "--encoder",
        "-pretrained_weights",
        metavar="PATH",
        help="take the network's features from the encoder of another training, as it is: a checkpoint of nnU-Net, its "
        "folder of a trained model (as TotalSegmentator ships them) or a state_dict. The segmentation stays that of "
        "-tr. Default: the segmentation's own features",
    )
    parser.add_argument(
        "-o",
        type=Path,
        metavar="FOLDER",
        help="folder of the new model. Default: that of nnUNetTrainer_CLSHeadLesion beside the segmentation's",
    )
    add_device(parser)
    parser.add_argument("--backend", default="auto", metavar="NAME", help="auto, torch or openvino")
    parser.add_argument("--precision", default="auto", metavar="NAME", help="auto, f32, bf16 or fp16")
    add_target_labels(parser, "the checkpoint's, else all foreground")
    parser.add_argument(
        "--class_weights", metavar="WEIGHTS", default="balanced", help="as NNUNETV2_MT_CLASS_WEIGHTS. Default: balanced"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace folds that were fitted or trained before")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Fit, write and print the estimate."""
    run_command(build_parser(), _fit, argv)


def _fit(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from nnunet_3dct.paths import find_folds, find_model_folder
    from nnunet_3dct.runtime import keep_freed_memory
    from nnunet_3dct.settings import Settings
    from nnunet_3dct.training.fitted_model import TRAINER, fit_head

    keep_freed_memory()
    model = find_model_folder(args.d, args.tr, args.p, args.c)
    if not model.name.startswith(f"{args.tr}__"):
        raise SettingsError(f"-tr {args.tr}: expected a trained model of it, found only {model.name}. Name it.")
    output = args.o or model.parent / f"{TRAINER}__{args.p}__{args.c}"
    if output.resolve() == model.resolve():
        raise SettingsError(f"-o {output}: expected another folder than that of the segmentation. Choose one.")
    asked = Settings.from_env(
        {"NNUNETV2_MT_TARGET_LABELS": args.target_labels or "", "NNUNETV2_MT_CLASS_WEIGHTS": args.class_weights}
    )
    bar = partial(tqdm, desc="cases", leave=False, disable=True if args.disable_progress_bar else None)

    def progress(cases: Iterable[str]) -> Iterable[str]:
        return bar(cases)

    result = fit_head(
        model,
        output,
        folds=find_folds(model, args.f, args.chk),
        checkpoint_name=args.chk,
        encoder=args.encoder,
        target_labels=asked.target_labels,
        weights=asked.class_weights or "balanced",
        device=args.device,
        backend=args.backend,
        precision=args.precision,
        overwrite=args.overwrite,
        progress=progress,
        on_message=print,
    )
    print(format_fit(result))
    print(f"\nwritten to {output}")


def format_fit(result: HeadFit) -> str:
    """Lay out what was chosen and what it is worth."""
    lines = []
    for fold, fit in result["folds"].items():
        lines.append(
            f"fold {fold}: {sum(fit['training_cases'])} training cases ({fit['training_cases']} in each class)"
        )
        lines += [f"    {chosen}" for chosen in fit["chosen"]]
        if fit["without_target"]:
            lines.append(f"    {len(fit['without_target'])} cases not used, the network finds no target in them")
    metrics = result["out_of_fold"]
    if metrics is None:
        return "\n".join([*lines, "", "No validation case has a known class: no estimate."])
    intervals = metrics["confidence_intervals"] or {}
    lines += ["", f"out of fold, {metrics['n_samples']} cases that neither network nor fit has seen:"]
    for name, key in (("macro-F1", "f1_macro"), ("balanced accuracy", "balanced_accuracy"), ("macro AUC", "auc_macro")):
        value = metrics.get(key)
        low, high = intervals.get(key, (None, None))
        interval = "" if low is None else f" (95 % interval {low:.2f} to {high:.2f})"
        lines.append(f"    {name:18} {'-' if value is None else f'{value:.3f}'}{interval}")
    calibration = result["calibration"]
    if calibration is not None:
        quality = calibration.get("after") or calibration["before"]
        lines.append(f"    calibration error  {quality['expected_calibration_error']:.3f}")
        together = calibration.get("ensemble_after") or calibration.get("ensemble_before")
        if together is not None:
            lines.append(f"    of all folds       {together['expected_calibration_error']:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
