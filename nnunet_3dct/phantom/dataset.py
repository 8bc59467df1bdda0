"""CT-like pancreas crops with lesions of three subtypes, written as an nnU-Net raw dataset.

All shapes are defined in mm, so that the varying voxel size matters. Nothing here is patient data.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from nnunet_3dct.errors import ImageError, OutputError, SettingsError
from nnunet_3dct.formats.atomic import write_json
from nnunet_3dct.formats.image_files import check_image_file
from nnunet_3dct.phantom.case import make_case
from nnunet_3dct.phantom.lesion import LOOKS
from nnunet_3dct.runtime import check_choice

CLASS_RATIO = (62, 106, 84)
SPLITS = {"Tr": "case", "Val": "val"}


def draw_subtypes(n: int, rng: np.random.Generator) -> list[int]:
    """``n`` classes near 62 : 106 : 84 by largest remainder, in random order."""
    exact = n * np.array(CLASS_RATIO) / sum(CLASS_RATIO)
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    return [int(c) for c in rng.permutation(np.repeat(np.arange(len(counts)), counts))]


@dataclass(frozen=True)
class _Job:
    """One case to write; small, since it is sent to another process."""

    folder: str
    split: str
    case: str
    seed: tuple[int, int, int]
    subtype: int
    difficulty: str


def _write_case(job: _Job) -> None:
    rng = np.random.default_rng(job.seed)
    origin = [round(float(v), 2) for v in rng.uniform((-200, -200, -900), (0, 0, 300))]
    case = make_case(rng, job.subtype, job.difficulty)
    files = {
        f"images{job.split}/{job.case}_0000.nii.gz": case.image,
        f"labels{job.split}/{job.case}.nii.gz": case.label,
    }
    for name, array in files.items():
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(case.spacing_mm[::-1])
        image.SetOrigin(origin)
        path = Path(job.folder, name)
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
        try:
            check_image_file(path)  # SimpleITK is silent about a full disk
        except ImageError as error:
            raise OutputError(f"{path.name} was not written whole: {error} Check the free space.") from error


def write_phantom(
    folder: str | os.PathLike[str],
    *,
    cases: int = 60,
    val: int = 12,
    seed: int = 0,
    difficulty: str = "easy",
    num_processes: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write synthetic CT of a pancreas with lesions of three classes as an nnU-Net raw dataset.

    Images are int16 in HU, labels 0 background, 1 pancreas, 2 lesion; ``classification.json`` has the class of every
    case: 0 solid, 1 cystic, 2 hypervascular. The same seed gives the same bytes, however many processes are used. The
    folder appears when all is written, or not at all.

    Args:
        folder: of the dataset, such as ``$nnUNet_raw/Dataset001_3DCT``.
        cases: training cases, at least 3 so that every class is there.
        val: held-out cases (``imagesVal``, ``labelsVal``), 0 for none.
        seed: any integer from 0.
        difficulty: ``easy``, or ``hard`` where no single intensity statistic tells the classes apart.
        num_processes: cases drawn side by side.
        overwrite: replace a dataset that is already in ``folder``.
        progress: called after each case with the number of those written and of all.

    Returns:
        The folder.

    Raises:
        SettingsError: a value cannot be used, or the folder holds something.
        OutputError: a file cannot be written, as on a full disk.

    Examples:
        >>> import nnunet_3dct
        >>> folder = nnunet_3dct.write_phantom(tmp / "Dataset001_3DCT", cases=3, val=0)
        >>> sorted(path.name for path in folder.iterdir())
        ['classification.json', 'dataset.json', 'imagesTr', 'labelsTr']
        >>> sorted(path.name for path in (folder / "imagesTr").iterdir())
        ['case_0000_0000.nii.gz', 'case_0001_0000.nii.gz', 'case_0002_0000.nii.gz']
    """
    _check_numbers(cases, val, seed, num_processes)
    check_choice("difficulty", difficulty, LOOKS)
    target = Path(folder).resolve()
    _check_folder(target, overwrite)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    replaced = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    try:
        jobs = _prepare(partial, cases, val, seed, difficulty)
        for done, _ in enumerate(_run(jobs, num_processes), start=1):
            if progress is not None:
                progress(done, len(jobs))
        if target.exists():
            target.rename(replaced)
        partial.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}. Check the path and the free space.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _check_numbers(cases: int, val: int, seed: int, num_processes: int) -> None:
    for name, value, least in (
        ("cases", cases, len(CLASS_RATIO)),
        ("val", val, 0),
        ("seed", seed, 0),
        ("num_processes", num_processes, 1),
    ):
        if value < least:
            raise SettingsError(f"{name}: expected {least} or more, found {value}.")


def _check_folder(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise SettingsError(f"{target}: expected a folder, found a file. Choose another path.")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise SettingsError(
            f"{target}: expected an empty folder, found files. Choose another one, or use the option overwrite to "
            "replace the dataset in it."
        )
    if not (target / "dataset.json").is_file():
        raise SettingsError(
            f"{target}: expected a dataset to overwrite, found files but no dataset.json. Empty the folder yourself, "
            "or choose another one."
        )


def _prepare(folder: Path, n_train: int, n_val: int, seed: int, difficulty: str) -> list[_Job]:
    """Make the folders and the JSON files; returns the cases still to be drawn."""
    jobs = []
    for number, (split, prefix) in enumerate(SPLITS.items()):
        n = (n_train, n_val)[number]
        if n == 0:
            continue
        for kind in ("images", "labels"):
            (folder / f"{kind}{split}").mkdir(parents=True)
        # four numbers, as a seed of two equals the seed of the first case: NumPy pads with zeros
        subtypes = draw_subtypes(n, np.random.default_rng([seed, number, 0, 1]))
        for i, subtype in enumerate(subtypes):
            jobs.append(_Job(str(folder), split, f"{prefix}_{i:04d}", (seed, number, i), subtype, difficulty))
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "pancreas": 1, "lesion": 2},
        "numTraining": n_train,
        "file_ending": ".nii.gz",
        "description": f"synthetic pancreas crops, {difficulty}, seed {seed}",
    }
    for name, content in (
        ("dataset.json", dataset),
        ("classification.json", {j.case: j.subtype for j in jobs}),
    ):
        write_json(content, folder / name)
    return jobs


def _run(jobs: list[_Job], num_processes: int) -> Iterator[None]:
    """Write all cases, yielding after each; the first failure ends the run."""
    if num_processes == 1:
        yield from map(_write_case, jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_processes, len(jobs)), spawn, initializer=_leave_ctrl_c_to_parent) as pool:
        try:
            for done in as_completed([pool.submit(_write_case, job) for job in jobs]):
                yield done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _leave_ctrl_c_to_parent() -> None:
    """In a terminal it reaches every process at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
