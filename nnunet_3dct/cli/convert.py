"""``nnUNet3DCT_convert``: a dataset from what a hospital, a challenge or a scanner has."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_3dct.cli.runner import DONE, SOME_FAILED, run_command
from nnunet_3dct.errors import SettingsError

if TYPE_CHECKING:
    from nnunet_3dct.data.convert.convert import ConversionResult
    from nnunet_3dct.data.convert.in_place import InPlaceResult

KINDS = ("challenge", "folders", "decathlon", "dicom")
_SHOWN = 20


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nnUNet3DCT_convert",
        description="Make a raw dataset of nnU-Net with class labels from a folder of images. What is not quite right "
        "in a file is repaired, counted and noted in conversion.json; a file that cannot be read costs its case, not "
        "the run. A run that was stopped goes on where it was. The exit code is 1 when something of the source is not "
        "in the dataset.",
    )
    add = parser.add_argument
    add("-i", required=True, type=Path, metavar="SOURCE", help="folder to convert; for DICOM also a ZIP archive")
    add("-o", type=Path, metavar="DATASET", help="folder of the dataset, e.g. $nnUNet_raw/Dataset001_3DCT")
    add("--from", dest="kind", choices=KINDS, help="kind of source; default: found by what is in it")
    where = parser.add_argument_group("where things are (folders and table)")
    add = where.add_argument
    add("--images", metavar="FOLDER", help="of images, or a pattern such as '*/ct.nii.gz', in SOURCE or anywhere")
    add("--masks", metavar="FOLDER", help="of masks, or a pattern such as '*/seg.nii.gz'")
    add("--test_images", metavar="FOLDER", help="of images without masks, for imagesTs")
    add("--labels", type=Path, metavar="TABLE", help="table of classes: CSV or .xlsx; default: the only one in SOURCE")
    add("--sheet", help="of the workbook")
    add(
        "--name_column",
        metavar="NAME",
        help="column of the cases' names, where it is not called Names, case, file, ...",
    )
    add(
        "--class_column",
        metavar="NAME",
        help="column of the classes, where it is not called Subtype, class, label, ...",
    )
    add("--patient_column", metavar="NAME", help="column of the patients, where it is not called Patient, subject, ...")
    add(
        "--split_column",
        metavar="NAME",
        help="column that says train, validation or test, where it is not called split",
    )
    what = parser.add_argument_group("what things are called")
    add = what.add_argument
    add("--class_names", nargs="+", metavar="NAME", help="of the classes 0, 1, ..., as in the table")
    add("--label_names", nargs="+", metavar="NAME", help="of the labels 1, 2, ... in the masks")
    add("--map_labels", nargs="+", metavar="OLD=NEW", help="labels in the masks that become others, such as 255=1")
    add("--channel_names", nargs="+", metavar="NAME", help="of the images of a case. Default: CT")
    add("--keep_ids", "--keep-ids", action="store_true", help="let DICOM identifiers into the dataset")
    how = parser.add_argument_group("how")
    add = how.add_argument
    add("--transfer", choices=("copy", "hardlink", "symlink"), default="copy",
        help="of files that need no repair. Default: %(default)s")  # fmt: skip
    add("-np", type=int, default=2, metavar="N", help="processes. Default: %(default)s")
    add("--overwrite", action="store_true", help="replace the dataset in the folder")
    add("--repair", action="store_true", help="SOURCE is a dataset of nnU-Net: repair its files in place")
    add("--undo", action="store_true", help="SOURCE is a converted or repaired dataset: undo the repairs in its files")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Convert and print what was done and what was not."""
    run_command(build_parser(), _work, argv)


def _work(args: argparse.Namespace) -> int:
    if args.repair or args.undo:
        return _in_place(args)
    if args.o is None:
        raise SettingsError("-o: expected the folder of the dataset, such as $nnUNet_raw/Dataset001_3DCT, found none.")
    return _convert(args)


def _convert(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from nnunet_3dct.data.convert.convert import convert_dataset

    with tqdm(desc="cases", unit="case", leave=False, disable=args.disable_progress_bar or None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = convert_dataset(
            args.i,
            args.o,
            kind=args.kind,
            images=args.images,
            masks=args.masks,
            test_images=args.test_images,
            labels=args.labels,
            sheet=args.sheet,
            name_column=args.name_column,
            class_column=args.class_column,
            patient_column=args.patient_column,
            split_column=args.split_column,
            class_names=args.class_names,
            label_names=args.label_names,
            label_map=_label_map(args.map_labels),
            channel_names=args.channel_names,
            transfer=args.transfer,
            keep_ids=args.keep_ids,
            num_processes=args.np,
            overwrite=args.overwrite,
            progress=show,
        )
    _report(result, args.verbose)
    return DONE if result.ok else SOME_FAILED


def _report(result: ConversionResult, verbose: bool) -> None:
    numbers = ", ".join(f"{n} in images{part}" for part, n in result.num_cases.items() if n)
    kept = f" ({result.num_kept} of them from an earlier run)" if result.num_kept else ""
    print(f"{result.kind}: {_counted(sum(result.num_cases.values()), 'case')}{kept}: {numbers or 'none'}")
    if result.class_names:
        print(f"classes: {', '.join(f'{number} {name}' for number, name in enumerate(result.class_names))}")
    _print_repairs(result.repairs, verbose)
    for note in result.notes:
        print(f"note: {note}")
    for problem in result.problems:
        print(f"problem: {problem}")
    for what, named in (("failed", result.failed), ("left out", result.left_out)):
        for name, reason in named.items():
            print(f"{what}: {name}: {reason}")
    bad = len(result.failed) + len(result.left_out) + len(result.problems)
    if bad:
        print(
            f"\n{_counted(len(result.failed), 'case')} failed, {len(result.left_out)} files or rows left out, "
            f"{_counted(len(result.problems), 'problem')}. Put them right and run the command again: what is finished is kept."
        )
    print(f"\nwritten to {result.folder}; source, hash and repairs of every file in conversion.json")


def _print_repairs(repairs: Mapping[str, Sequence[Mapping[str, object]]], verbose: bool) -> None:
    from nnunet_3dct.data.repairs import headline

    files = Counter(str(repair["kind"]) for of_file in repairs.values() for repair in of_file)
    for kind, number in sorted(files.items()):
        print(f"repaired: {_counted(number, 'file')}: {headline(kind)}")
        named = [
            f"{name}: {repair['found']}"
            for name, of_file in sorted(repairs.items())
            for repair in of_file
            if repair["kind"] == kind
        ]
        for line in named if verbose else named[:2]:
            print(f"    {line}")
        if not verbose and len(named) > 2:
            print(f"    and {len(named) - 2} more, listed in conversion.json and by --verbose")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _label_map(pairs: Sequence[str] | None) -> dict[int, int] | None:
    if pairs is None:
        return None
    found = {}
    for pair in pairs:
        old, _, new = pair.partition("=")
        if not (old.isdecimal() and new.isdecimal()):
            raise SettingsError(f"--map_labels: expected pairs of numbers such as 255=1, found {pair}.")
        found[int(old)] = int(new)
    return found


def _in_place(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from nnunet_3dct.data.convert.in_place import repair_dataset, undo_repairs
    from nnunet_3dct.paths import find_raw_dataset

    if args.repair and args.undo:
        raise SettingsError("--repair and --undo: expected one of them, found both.")
    if args.o is not None:
        raise SettingsError("-o: expected none with --repair and --undo, which work in the folder given with -i.")
    folder = find_raw_dataset(str(args.i))
    with tqdm(desc="cases", unit="case", leave=False, disable=args.disable_progress_bar or None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        work = undo_repairs if args.undo else repair_dataset
        result = work(folder, num_processes=args.np, progress=show)
    _report_in_place(result, args.undo, args.verbose)
    return SOME_FAILED if result.failed else DONE


def _report_in_place(result: InPlaceResult, undone: bool, verbose: bool) -> None:
    if undone:
        print(f"{_counted(len(result.files), 'file')} as before the repairs")
    else:
        _print_repairs(result.files, verbose)
        print(f"{_counted(len(result.files), 'file')} repaired" if result.files else "no file needs a repair")
    for name, reason in result.failed.items():
        print(f"failed: {name}: {reason}")
    if result.files and not undone:
        print(f"\nto undo: nnUNet3DCT_convert -i {result.folder} --undo")


if __name__ == "__main__":
    main()
