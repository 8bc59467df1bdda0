"""``nnUNet3DCT_predict``: segmentation and class of every case in a folder."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_3dct.errors import CheckpointError, ImageError, NNUNet3DCTError, SettingsError, listing

if TYPE_CHECKING:
    from nnunet_3dct.inference.folder import Case, Outcome
    from nnunet_3dct.inference.model import MultiTaskPredictor


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_predict",
        description="Segments every case of a folder and names its class, both from one network pass. Flags are "
        "those of nnUNetv2_predict; which head is used is read from the checkpoint.",
    )
    add = parser.add_argument
    add("-i", required=True, type=Path, help="folder with the images (<case>_0000.nii.gz, ...)")
    add("-o", required=True, type=Path, help="folder for the segmentations; made if it does not exist")
    add("-co", type=Path, help="folder for the class files; default: the one given with -o")
    add("-d", required=True, help="dataset name or id")
    add("-p", default="nnUNetPlans", help="plans identifier; default: nnUNetPlans")
    add("-tr", default="nnUNetTrainer_CLSHeadSumFT", help="trainer; default: nnUNetTrainer_CLSHeadSumFT")
    add("-c", required=True, help="configuration, for instance 3d_fullres")
    add("-f", nargs="+", help="folds to average; default: all that have the checkpoint")
    add("-chk", default="checkpoint_final.pth", help="checkpoint name; default: checkpoint_final.pth")
    add("-step_size", type=float, default=0.5, help="sliding window step, above 0 to 1; default: 0.5")
    add("--tta", choices=["none", "pair", "flips", "full"], help="mirroring at test time: none, all axes at once (two "
        "passes), each axis alone (four), or every combination as in nnU-Net (eight); default: full")  # fmt: skip
    add("--disable_tta", action="store_true", help="the same as --tta none")
    add("--skip_empty", action="store_true", help="leave out windows that show nothing but air")
    add("--fast", action="store_true", help="--tta pair --skip_empty: several times faster, a little less accurate")
    add("--backend", default="auto", choices=["auto", "torch", "openvino"],
        help="what runs the network; default: openvino on the CPU where it is installed, else torch")  # fmt: skip
    add("--precision", default="auto", choices=["auto", "f32", "bf16", "fp16"],
        help="of the convolutions; default: bf16 in openvino on CPUs that have it, fp16 on CUDA, else f32")  # fmt: skip
    add("--explain", action="store_true", help="also write where the evidence for the predicted class lies "
        "(evidence/<case>, 0 to 1); takes one more pass over each window that has a say in the class")  # fmt: skip
    add("--abstain", type=float, metavar="P", help="mark cases whose highest class probability is below P for review "
        "(\"review\": true in their JSON, a list at the end)")  # fmt: skip
    add("--save_probabilities", action="store_true", help="also write voxel probabilities (<case>.npz)")
    add("--continue_prediction", "--c", action="store_true", help="leave out cases whose results are whole")
    add("-device", default="auto", choices=["auto", "cuda", "cpu", "mps"], help="default: cuda, else cpu")
    add("-npp", type=int, default=3, help="threads for reading and preprocessing; default: 3")
    add("-nps", type=int, default=3, help="threads for resampling and writing; default: 3")
    add("-num_parts", type=int, default=1, help="number of calls that share the folder; default: 1")
    add("-part_id", type=int, default=0, help="which of them this is, from 0")
    add("--not_on_device", action="store_true", help="keep results in CPU memory while the GPU predicts")
    add("--verbose", action="store_true", help="a line on each case: class, size, windows, seconds")
    add("--disable_progress_bar", action="store_true", help="for logs and batch systems")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point; exit code 1 when anything failed."""
    args = _parser().parse_args(argv)
    if args.device == "mps":  # before torch is imported: it lacks 3D pooling there
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    try:
        _check_numbers(args)
        _resolve_mirroring(args)
        outcome = run(args)
    except NNUNet3DCTError as error:
        sys.exit(f"error: {error}")
    if outcome.failed:
        print(f"{len(outcome.failed)} of {len(outcome.failed) + len(outcome.seconds)} cases failed:", file=sys.stderr)
        for case, reason in outcome.failed.items():
            print(f"  {case}: {reason}", file=sys.stderr)
        sys.exit(1)


def run(args: argparse.Namespace) -> Outcome:
    """Load the model, predict this part's cases, write tables and manifest."""
    from nnunet_3dct.formats.class_files import write_class_tables
    from nnunet_3dct.formats.manifest import write_manifest
    from nnunet_3dct.inference.case_writer import CaseWriter, remove_leftovers
    from nnunet_3dct.inference.folder import Outcome, Pipeline

    start = time.perf_counter()
    class_folder = args.co or args.o
    predictor, folds = _load_predictor(args)
    file_ending = predictor.dataset_json["file_ending"]
    all_cases = find_cases(args.i, file_ending)
    cases = all_cases[args.part_id :: args.num_parts]
    for folder in (args.o, class_folder):
        folder.mkdir(parents=True, exist_ok=True)
    writer = CaseWriter(
        args.o,
        class_folder,
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.dataset_json,
        predictor.target.labels,
        args.save_probabilities,
        args.explain,
    )
    remove_leftovers(args.o, [case.identifier for case in cases])
    todo = [c for c in cases if not (args.continue_prediction and writer.is_complete(c.identifier))]
    if predictor.calibration_note:
        print(predictor.calibration_note, file=sys.stderr)
    print(f"{len(all_cases)} cases in {args.i}; {len(todo)} to predict; {predictor.backends[0]}.")
    produced_by = {
        **predictor.describe(),
        "checkpoint": args.chk,
        "folds": folds,
    }
    loaded = time.perf_counter() - start
    pipeline = Pipeline(predictor, writer, args.npp, args.nps, produced_by, args.verbose, args.abstain)
    outcome = pipeline.run(todo, not args.disable_progress_bar) if todo else Outcome()
    write_manifest(args, predictor, outcome, produced_by, [c.identifier for c in cases], loaded, start)
    write_class_tables(
        class_folder, [c.identifier for c in all_cases if c.identifier not in outcome.failed], file_ending
    )
    if outcome.review:
        cases_to_review = listing([f"{case} ({p:.2f})" for case, p in sorted(outcome.review.items())])
        print(f"For review, highest class probability below {args.abstain:g}: {cases_to_review}")
    print(f"{len(outcome.seconds)} cases predicted in {time.perf_counter() - start:.1f} s -> {args.o}")
    return outcome


def find_cases(folder: Path, file_ending: str) -> list[Case]:
    """Cases of an nnU-Net image folder, sorted.

    Raises:
        ImageError: the folder is missing or holds no image with the dataset's ending.
    """
    from nnunet_3dct.inference.folder import Case

    if not folder.is_dir():
        raise ImageError(f"Input folder {folder}: expected a folder, found none. Check -i.")
    files: dict[str, list[Path]] = {}
    others = []
    for path in sorted(folder.iterdir()):
        matched = re.fullmatch(rf"(.+)_\d{{4}}{re.escape(file_ending)}", path.name)
        if matched:
            files.setdefault(matched[1], []).append(path)
        elif path.name.endswith(file_ending):
            others.append(path.name)
    if not files:
        found = listing(sorted(p.name for p in folder.iterdir()), 3) or "nothing"
        raise ImageError(
            f"Input folder {folder}: expected images named <case>_0000{file_ending} (the ending of the training "
            f"data), found {found}."
        )
    if others:
        print(f"Left out of {folder}, not named <case>_0000{file_ending}: {listing(others)}.", file=sys.stderr)
    return [Case(identifier, tuple(paths)) for identifier, paths in sorted(files.items())]


def _check_numbers(args: argparse.Namespace) -> None:
    rules = [
        ("-step_size", 0 < args.step_size <= 1, "a number above 0 and at most 1", args.step_size),
        ("--abstain", args.abstain is None or 0 < args.abstain < 1, "a probability between 0 and 1", args.abstain),
        ("-npp", args.npp >= 1, "at least 1", args.npp),
        ("-nps", args.nps >= 1, "at least 1", args.nps),
        ("-num_parts", args.num_parts >= 1, "at least 1", args.num_parts),
        ("-part_id", 0 <= args.part_id < args.num_parts, f"0 to {args.num_parts - 1}", args.part_id),
    ]
    for flag, holds, expected, found in rules:
        if not holds:
            raise SettingsError(f"{flag}: expected {expected}, found {found}")


def _resolve_mirroring(args: argparse.Namespace) -> None:
    """One value of ``--tta`` from the flags that speak of it."""
    wanted = {"--tta " + args.tta: args.tta} if args.tta else {}
    if args.disable_tta:
        wanted["--disable_tta"] = "none"
    if args.fast:
        wanted["--fast"] = "pair"
        args.skip_empty = True
    if len(set(wanted.values())) > 1:
        raise SettingsError(f"--tta: expected one choice, found {' and '.join(wanted)}, which contradict each other.")
    args.tta = next(iter(wanted.values()), "full")


def _load_predictor(args: argparse.Namespace) -> tuple[MultiTaskPredictor, list[int | str]]:
    from nnunet_3dct.inference.model import MultiTaskPredictor
    from nnunet_3dct.paths import find_folds, find_model_folder
    from nnunet_3dct.runtime import choose_device
    from nnunet_3dct.settings import Settings

    settings = Settings.from_env()
    folder = find_model_folder(args.d, args.tr, args.p, args.c)
    if not folder.name.startswith(f"{args.tr}__"):
        print(f"No model of {args.tr}; using {folder.name}.")
    folds = find_folds(folder, args.f, args.chk)
    predictor = MultiTaskPredictor(
        step_size=args.step_size,
        tta=args.tta,
        backend=args.backend,
        precision=args.precision,
        skip_empty=args.skip_empty,
        sum_on_device=not args.not_on_device,
        explain=args.explain,
        device=choose_device(args.device),
    )
    predictor.load(folder, folds, args.chk)
    found: dict[str, Any] = predictor.head_config
    if settings.num_cls is not None and settings.num_cls != found["num_classes"]:
        raise CheckpointError(
            f"Checkpoint {folder}/fold_{folds[0]}/{args.chk}: expected {settings.num_cls} classes "
            f"(NNUNETV2_MT_NUM_CLS), found {found['num_classes']}. Unset the variable or choose another checkpoint."
        )
    return predictor, folds


if __name__ == "__main__":
    main()
