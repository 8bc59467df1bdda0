"""CT-like pancreas crops with lesions of three subtypes, written as an nnU-Net raw dataset.

All shapes are defined in mm, so that the varying voxel size matters. Nothing here is patient data.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from tqdm import tqdm

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.phantom.case import PhantomCase, make_case
from nnunet_3dct.phantom.lesion import LOOKS

__all__ = ["CLASS_RATIO", "PhantomCase", "draw_subtypes", "make_case", "write_dataset"]

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
        sitk.WriteImage(image, str(Path(job.folder, name)), useCompression=True, compressionLevel=1)


def write_dataset(
    folder: str | os.PathLike[str],
    n_train: int,
    n_val: int,
    seed: int = 0,
    difficulty: str = "easy",
    num_processes: int = 1,
    overwrite: bool = False,
) -> None:
    """Write a dataset that nnU-Net can plan, with ``classification.json`` for all its cases.

    The same seed gives the same bytes, however many processes are used. The folder appears when all is
    written, or not at all.

    Args:
        folder: Dataset folder, such as ``$nnUNet_raw/Dataset001_3DCT``.
        n_train: Training cases, at least 3 so that every class is there.
        n_val: Validation cases (``imagesVal``, ``labelsVal``), 0 for none.
        seed: Any integer from 0.
        difficulty: See :func:`make_case`.
        num_processes: Cases drawn at the same time.
        overwrite: Replace a dataset that is already in ``folder``.

    Raises:
        SettingsError: If a value cannot be used or the folder holds something.
    """
    _check_numbers(n_train, n_val, seed, difficulty, num_processes)
    target = Path(folder).resolve()
    _check_folder(target, overwrite)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    replaced = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    try:
        jobs = _prepare(partial, n_train, n_val, seed, difficulty)
        for _ in tqdm(_run(jobs, num_processes), total=len(jobs), desc=target.name, unit="case"):
            pass
        if target.exists():
            target.rename(replaced)
        partial.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_numbers(n_train: int, n_val: int, seed: int, difficulty: str, num_processes: int) -> None:
    for name, value, least in (
        ("training cases", n_train, len(CLASS_RATIO)),
        ("validation cases", n_val, 0),
        ("seed", seed, 0),
        ("processes", num_processes, 1),
    ):
        if value < least:
            raise SettingsError(f"{name}: expected {least} or more, got {value}")
    if difficulty not in LOOKS:
        raise SettingsError(f"difficulty: expected one of {', '.join(LOOKS)}, got {difficulty!r}")


def _check_folder(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise SettingsError(f"{target} is a file; name a folder")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise SettingsError(f"{target} is not empty; pass --overwrite to replace the dataset in it")
    if not (target / "dataset.json").is_file():
        raise SettingsError(f"{target} holds files but no dataset.json; refusing to replace it, empty it yourself")


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
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    return jobs


def _run(jobs: list[_Job], num_processes: int) -> Iterator[None]:
    """Write all cases, yielding after each; the first failure ends the run."""
    if num_processes == 1:
        yield from map(_write_case, jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_processes, len(jobs)), mp_context=spawn) as pool:
        try:
            for done in as_completed([pool.submit(_write_case, job) for job in jobs]):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
