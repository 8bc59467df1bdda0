"""Pictures of cases of a raw dataset, as far as their files can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np

from nnunet_3dct.data.checks.cases import CheckedCase, CheckedCases
from nnunet_3dct.errors import ImageError
from nnunet_3dct.formats.geometry import Geometry, geometry_differences, read_geometry
from nnunet_3dct.formats.image_files import read_voxels
from nnunet_3dct.report.options import WINDOW
from nnunet_3dct.report.orientation import OrientedVolume, orient
from nnunet_3dct.report.pictures import CasePictures, add_image, draw_case

FEW = 3  # cases that are drawn without further processes


@dataclass(frozen=True)
class DatasetPictures:
    """Pictures of one case.

    Attributes:
        drawn: None where the image cannot be shown.
        remark: why there is no picture or no outline; empty if there are both.
        window: lowest and highest intensity of the pictures.
    """

    drawn: CasePictures | None
    remark: str
    window: tuple[float, float] = WINDOW


def draw_cases(named: Sequence[CheckedCase], cases: CheckedCases, num_processes: int = 1) -> list[DatasetPictures]:
    """Draw cases, several at a time.

    Args:
        named: which.
        cases: of the dataset.
        num_processes: at the same time.
    """
    one = partial(draw, structures=cases.structures, reader=cases.reader, is_ct=cases.is_ct)
    if num_processes <= 1 or len(named) <= FEW:
        return [one(case) for case in named]
    with ProcessPoolExecutor(min(num_processes, len(named)), mp_context=get_context("spawn")) as pool:
        return list(pool.map(one, named, chunksize=4))


def draw(case: CheckedCase, structures: Mapping[int, str], reader: str | None, is_ct: bool) -> DatasetPictures:
    """Draw three planes of a case with the outlines of its label, where that lies on the image's grid.

    Args:
        case: which.
        structures: label -> name.
        reader: nnU-Net's, by name.
        is_ct: whether intensities are expected to be HU.
    """
    try:
        path = case.files.images[0]
        grid = read_geometry(path, reader=reader)
        values = read_voxels(path, reader)
        if len(grid.size) != 3 or values.ndim != 3:
            return DatasetPictures(None, "Not shown: it is no volume of one channel.")
    except (ImageError, IndexError) as error:
        return DatasetPictures(None, f"Not shown: {error}")
    values = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    window = _window(case, values, is_ct)
    label, remark = _label(case, grid, structures, reader)
    named = {name: tuple(k for k, other in structures.items() if other == name) for name in structures.values()}
    shown = np.zeros(values.shape, np.uint8) if label is None else label
    drawn = add_image(draw_case(named, _oriented(shown, grid)), _oriented(values, grid), window)
    return DatasetPictures(drawn, remark, window)


def _window(case: CheckedCase, values: np.ndarray, is_ct: bool) -> tuple[float, float]:
    """That of soft tissue where intensities are HU, else what holds nearly all voxels."""
    low, middle, high = (float(v) for v in np.percentile(values[:: max(1, len(values) // 40)], (1, 50, 99)))
    if is_ct and low < -100 and high > 50 and middle < 200:
        return WINDOW
    return (low, high) if high > low else (low, low + 1)


def _label(
    case: CheckedCase, grid: Geometry, structures: Mapping[int, str], reader: str | None
) -> tuple[np.ndarray | None, str]:
    path = case.files.label
    if path is None:
        return None, ""
    try:
        differences = geometry_differences(read_geometry(path, reader=reader), grid)
        if differences:
            return (
                None,
                f"Without outlines, since the label does not lie on the image's grid: {'; '.join(differences)}.",
            )
        values = np.rint(np.nan_to_num(read_voxels(path, reader)))
    except ImageError as error:
        return None, f"Without outlines: {error}"
    return np.where((values >= 0) & (values < 256), values, 0).astype(np.uint8), ""


def _oriented(array: np.ndarray, grid: Geometry) -> OrientedVolume:
    return orient(array, {"spacing": list(grid.spacing[::-1]), "sitk_stuff": {"direction": grid.direction}})
