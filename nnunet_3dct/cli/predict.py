"""``nnUNet3DCT_predict``: segmentation and class of every case in a folder."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_3dct.cli.runner import DONE, SOME_FAILED, run_command
from nnunet_3dct.errors import CheckpointError, SettingsError, listing
from nnunet_3dct.runtime import BACKENDS, MIRRORING, PRECISIONS

if TYPE_CHECKING:
    from nnunet_3dct.inference.folder import FolderResult
    from nnunet_3dct.inference.predictor import Predictor

FLAGS = {
    "step_size": "-step_size",
    "abstain": "--abstain",
    "device": "-device",
    "backend": "--backend",
    "precision": "--precision",
    "explain": "--explain",
    "num_preprocessing_threads": "-npp",
    "num_export_threads": "-nps",
    "num_parts": "-num_parts",
    "part_id": "-part_id",
    "clinical": "--clinical",
    "dicom_seg": "--dicom_seg",
    "dicom_sr": "--dicom_sr",
    "rtstruct": "--rtstruct",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_predict",
        description="Segments every case of a folder and names its class, both from one network pass. Flags are "
        "those of nnUNetv2_predict; which head is used is read from the checkpoint.",
    )
    add = parser.add_argument
    add("-i", required=True, type=Path, help="folder with the images (<case>_0000.nii.gz, ...); or a folder, ZIP "
        "archive or file of DICOM, each series of images a case")  # fmt: skip
    add("-o", required=True, type=Path, help="folder for the segmentations; made if it does not exist")
    add("-co", type=Path, help="folder for the class files; default: the one given with -o")
    add("-d", required=True, help="dataset name or id")
    add("-p", default="nnUNetPlans", help="plans identifier; default: nnUNetPlans")
    add("-tr", default="nnUNetTrainer_CLSHeadSumFT", help="trainer; default: nnUNetTrainer_CLSHeadSumFT")
    add("-c", required=True, help="configuration, for instance 3d_fullres")
    add("-f", nargs="+", help="folds to average; default: all that have the checkpoint")
    add("-chk", default="checkpoint_final.pth", help="checkpoint name; default: checkpoint_final.pth")
    add("-step_size", type=float, default=0.5, help="sliding window step, above 0 to 1; default: 0.5")
    add("--tta", choices=MIRRORING, help="mirroring at test time: none, all axes at once (two "
        "passes), each axis alone (four), or every combination as in nnU-Net (eight); default: full")  # fmt: skip
    add("--disable_tta", action="store_true", help="the same as --tta none")
    add("--skip_empty", action="store_true", help="leave out windows that show nothing but air")
    add("--fast", action="store_true", help="--tta pair --skip_empty: several times faster, a little less accurate")
    add("--backend", default="auto", choices=BACKENDS,
        help="what runs the network; default: openvino on the CPU where it is installed, else torch")  # fmt: skip
    add("--precision", default="auto", choices=PRECISIONS,
        help="of the convolutions; default: bf16 in openvino on CPUs that have it, fp16 on CUDA, else f32")  # fmt: skip
    add("--explain", action="store_true", help="also write where the evidence for the predicted class lies "
        "(evidence/<case>, 0 to 1); takes one more pass over each window that has a say in the class")  # fmt: skip
    add("--abstain", type=float, metavar="P", help="mark cases whose highest class probability is below P for review "
        "(\"review\": true in their JSON, a list at the end), and those unlike the training cases")  # fmt: skip
    add("--clinical", type=Path, metavar="CSV", help="table of the cases' covariates (Names,age,sex), for a model that "
        "was trained with some")  # fmt: skip
    add("--save_probabilities", action="store_true", help="also write voxel probabilities (<case>.npz)")
    add("--dicom_seg", action="store_true", help="with DICOM images: also write a DICOM Segmentation that refers to "
        "the series (<case>_seg.dcm)")  # fmt: skip
    add("--dicom_sr", action="store_true", help="with DICOM images: also write a Structured Report after TID 1500 with "
        "volumes, class, probabilities and model (<case>_sr.dcm)")  # fmt: skip
    add("--rtstruct", action="store_true", help="with DICOM images: also write outlines as an RT Structure Set "
        "(<case>_rtstruct.dcm)")  # fmt: skip
    add("--continue_prediction", "--c", action="store_true",
        help="keep cases whose results are whole and of the same model and settings")  # fmt: skip
    add("-device", default="auto", help="cuda, cuda:1, cpu or mps; default: cuda, else cpu")
    add("-npp", type=int, default=3, help="threads for reading and preprocessing; default: 3")
    add("-nps", type=int, default=3, help="threads for resampling and writing; default: 3")
    add("-num_parts", type=int, default=1, help="number of calls that share the folder; default: 1")
    add("-part_id", type=int, default=0, help="which of them this is, from 0")
    add("--not_on_device", action="store_true", help="keep results in CPU memory while the GPU predicts")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point; exit code 1 when a case failed or a file was left out."""
    run_command(_parser(), run, argv)


def run(args: argparse.Namespace) -> int:
    """Check the arguments, load the model, predict this part's cases, say how it went."""
    start = time.perf_counter()
    _resolve_mirroring(args)
    try:
        _check_arguments(args)
        predictor = _load(args)
        if predictor.calibration_note:
            print(predictor.calibration_note, file=sys.stderr)
        result = _predict(predictor, args)
    except SettingsError as error:
        raise _with_flag(error) from error
    _tell(result, args)
    print(f"{len(result.predicted)} cases predicted in {time.perf_counter() - start:.1f} s -> {args.o}")
    return SOME_FAILED if result.failed or result.left_out else DONE


def _check_arguments(args: argparse.Namespace) -> None:
    """Before torch is imported and anything is read."""
    from nnunet_3dct.inference.options import FolderOptions, PredictionOptions
    from nnunet_3dct.runtime import allow_cpu_for_mps

    PredictionOptions(**_options(args))
    FolderOptions(**_folder_options(args))
    if args.device == "mps":
        allow_cpu_for_mps()


def _options(args: argparse.Namespace) -> dict:
    return {
        "device": args.device,
        "tta": args.tta,
        "step_size": args.step_size,
        "skip_empty": args.skip_empty,
        "backend": args.backend,
        "precision": args.precision,
        "explain": args.explain,
        "abstain": args.abstain,
        "sum_on_device": not args.not_on_device,
    }


def _folder_options(args: argparse.Namespace) -> dict:
    return {
        "save_probabilities": args.save_probabilities,
        "continue_prediction": args.continue_prediction,
        "num_preprocessing_threads": args.npp,
        "num_export_threads": args.nps,
        "part_id": args.part_id,
        "num_parts": args.num_parts,
        "verbose": args.verbose,
        "clinical": args.clinical,
        "dicom_seg": args.dicom_seg,
        "dicom_sr": args.dicom_sr,
        "rtstruct": args.rtstruct,
    }


def _with_flag(error: SettingsError) -> SettingsError:
    """The message with the flag in place of the argument's name."""
    message = str(error)
    name = message.replace(":", " ").split(" ", 1)[0]
    return SettingsError(FLAGS[name] + message[len(name) :]) if name in FLAGS else error


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


def _load(args: argparse.Namespace) -> Predictor:
    from nnunet_3dct.paths import find_model_folder
    from nnunet_3dct.settings import Settings

    settings = Settings.from_env()
    folder = find_model_folder(args.d, args.tr, args.p, args.c)
    if not folder.name.startswith(f"{args.tr}__"):
        print(f"No model of {args.tr}; using {folder.name}.")
    from nnunet_3dct.inference.predictor import Predictor
    from nnunet_3dct.runtime import choose_device, keep_freed_memory

    if choose_device(args.device).type == "cpu":
        keep_freed_memory()
    predictor = Predictor(folder, args.f, args.chk, **_options(args), on_message=_say)
    if settings.num_cls is not None and settings.num_cls != predictor.num_classes:
        raise CheckpointError(
            f"Model folder {folder}, {args.chk}: expected {settings.num_cls} classes (NNUNETV2_MT_NUM_CLS), found "
            f"{predictor.num_classes}. Unset the variable or choose another checkpoint."
        )
    return predictor


def _predict(predictor: Predictor, args: argparse.Namespace) -> FolderResult:
    from tqdm import tqdm

    with tqdm(desc="Predicting", unit="case", disable=args.disable_progress_bar) as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        return predictor.predict_folder(
            args.i, args.o, class_folder=args.co, **_folder_options(args), progress=progress, arguments=vars(args)
        )


def _say(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr if text.startswith("Left out") else sys.stdout)


def _tell(result: FolderResult, args: argparse.Namespace) -> None:
    if result.review:
        cases = listing([f"{case} ({p:.2f})" for case, p in sorted(result.review.items())])
        print(f"For review, highest class probability below {args.abstain:g} or unlike the training cases: {cases}")
    if result.unusual:
        of = len(result.predicted) + len(result.kept)
        print(f"Unlike the training cases, {len(result.unusual)} of {of}: {listing(sorted(result.unusual))}")
    if result.without_basis:
        print(f"Class without basis: {listing(sorted(result.without_basis))}")
    if result.failed:
        of = len(result.failed) + len(result.predicted)
        print(f"{len(result.failed)} of {of} cases failed:", file=sys.stderr)
        for case, reason in result.failed.items():
            print(f"  {case}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
