"""``nnUNet3DCT_probe``: plain classifiers on a trained network's features, beside its head."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from nnunet_3dct.cli.model_flags import add_device, add_folds, add_model, add_target_labels
from nnunet_3dct.cli.runner import run_command
from nnunet_3dct.errors import SettingsError
from nnunet_3dct.evaluation.trained_folds import find_dataset


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command, nnU-Net's where it has them."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_probe",
        description="Fits LDA and logistic regression on the training cases of a fold, on the network's pooled "
        "features and on intensity and shape of the target that it outlines, and scores them on whole validation "
        "volumes beside the network's own head. A head that does not beat them is not worth its parameters.",
    )
    add_model(parser)
    add_folds(parser, "folds; several are put together. Default: all found")
    add_device(parser)
    add_target_labels(parser, "the checkpoint's, else all foreground")
    parser.add_argument("-o", type=Path, help="output file. Default: probe.json in the model folder")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Probe, write the result and print it."""
    run_command(build_parser(), _probe, argv)


def _probe(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from nnunet_3dct.formats.atomic import write_json
    from nnunet_3dct.paths import find_folds, find_model_folder
    from nnunet_3dct.probe.report import format_report, probe
    from nnunet_3dct.runtime import choose_device, keep_freed_memory
    from nnunet_3dct.settings import Settings

    device = choose_device(args.device)
    if device.type == "cpu":
        keep_freed_memory()
    model = find_model_folder(args.d, args.tr, args.p, args.c)
    folds = [fold for fold in find_folds(model, args.f, args.chk) if fold != "all"]
    if not folds:
        raise SettingsError("-f: expected folds with held-out cases, found only all.")
    base, splits, labels = find_dataset(model)
    chosen = Settings.from_env({"NNUNETV2_MT_TARGET_LABELS": args.target_labels or ""}).target_labels
    bar = partial(tqdm, desc="cases", leave=False, disable=True if args.disable_progress_bar else None)

    def progress(cases: Iterable[str]) -> Iterable[str]:
        return bar(cases)

    output = args.o or model / "probe.json"
    if not output.parent.is_dir():
        raise SettingsError(f"-o {output}: expected a folder that exists, found none.")
    result = probe(
        model,
        base,
        splits,
        [int(fold) for fold in folds],
        labels,
        checkpoint_name=args.chk,
        target_labels=chosen,
        device=device,
        progress=progress,
    )
    print(f"{model.name}\n{format_report(result)}")
    write_json(result, output)
    print(f"\nwritten to {output}")


if __name__ == "__main__":
    main()
