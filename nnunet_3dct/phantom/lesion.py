"""Lesions of three subtypes that share place and size and differ in texture, wall and margin.

``0`` solid: hypoattenuating, ill-defined, fine texture. ``1`` cystic: low core, thin enhancing wall, sharp
margin. ``2`` hypervascular: bright, coarse and septated, lobulated sharp margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_3dct.phantom.fields import Box, Triple, ellipsoid, occupancy, random_field

RADIUS_MM = (8.0, 18.0)


@dataclass(frozen=True)
class LesionSite:
    """Where and how large: drawn without looking at the subtype.

    Attributes:
        centre_mm: z, y, x from the centre of the volume.
        axes_mm: Half lengths along z, y, x.
        radius_mm: Radius of the ball with the same volume.
    """

    centre_mm: Sequence[float]
    axes_mm: Sequence[float]
    radius_mm: float


@dataclass(frozen=True)
class Look:
    """How one lesion appears.

    Attributes:
        mean_hu: Level of the lesion.
        fine, coarse, septa, wall: Weights of the four patterns (HU; shares when ``spread_hu`` is set).
        spread_hu: Standard deviation that the summed patterns are scaled to, mean removed; None leaves both.
        edge_mm: Width of the ramp from lesion to surroundings.
        wall_mm: Thickness of the wall.
        lobes_mm: Amplitude of the lobulated outline.
    """

    mean_hu: float
    fine: float
    coarse: float
    septa: float
    wall: float
    spread_hu: float | None
    edge_mm: float
    wall_mm: float
    lobes_mm: float


def easy_look(rng: np.random.Generator, subtype: int) -> Look:
    """Subtypes that attenuation alone nearly tells apart."""
    wall_mm = rng.uniform(1.0, 1.5)
    if subtype == 0:
        return Look(rng.normal(58, 5), 7, 3, 0, 0, None, rng.uniform(4, 6), wall_mm, 0.4)
    if subtype == 1:
        return Look(rng.normal(8, 5), 2, 2, 0, rng.normal(105, 8), None, 1.2, wall_mm, 0.0)
    return Look(rng.normal(142, 8), 6, 26, 30, 0, None, 1.2, wall_mm, 1.6)


def hard_look(rng: np.random.Generator, subtype: int) -> Look:
    """Subtypes whose mean and spread overlap; what differs is how the spread is laid out in space.

    Every subtype may carry a weak form of another's pattern.
    """
    wall_mm, spread = rng.uniform(1.2, 1.9), rng.uniform(11, 19)
    stray = np.abs(rng.normal(0, 0.22, 3))
    if subtype == 0:
        return Look(rng.normal(70, 12), 1.0, stray[0], stray[1], stray[2], spread, rng.uniform(2.4, 4.2), wall_mm, 0.5)
    if subtype == 1:
        return Look(rng.normal(65, 12), 0.4, stray[0], stray[1], 2.2, spread, rng.uniform(1.2, 2.2), wall_mm, 0.3)
    return Look(
        rng.normal(79, 12),
        0.4,
        0.9,
        rng.uniform(0.2, 0.6),
        stray[2],
        spread,
        rng.uniform(1.2, 2.2),
        wall_mm,
        1.0,
    )


LOOKS = {"easy": easy_look, "hard": hard_look}


def lesion_box(site: LesionSite, shape: Sequence[int], spacing_mm: Triple) -> Box:
    """Voxels around the lesion with room for its outline and edge."""
    box = []
    for centre, axis, n, s in zip(site.centre_mm, site.axes_mm, shape, spacing_mm, strict=True):
        middle, half = centre / s + (n - 1) / 2, (1.25 * axis + 6) / s
        box.append(slice(max(int(middle - half), 0), min(int(middle + half) + 2, n)))
    return box[0], box[1], box[2]


def draw_lesion(
    rng: np.random.Generator, site: LesionSite, look: Look, box: Box, shape: Sequence[int], spacing_mm: Triple
) -> tuple[np.ndarray, np.ndarray]:
    """Occupancy and attenuation of the lesion.

    Returns:
        Occupancy in [0, 1] and HU, both float32 over ``box``. The number of voxels with an occupancy above
        one half follows from the site alone.
    """
    position = np.meshgrid(
        *[
            ((np.arange(b.start, b.stop) - (n - 1) / 2) * s).astype(np.float32)
            for b, n, s in zip(box, shape, spacing_mm, strict=True)
        ],
        indexing="ij",
        sparse=True,
    )
    distance = ellipsoid(position, site.centre_mm, site.axes_mm)
    grid = distance.shape
    distance = distance + 0.09 * site.radius_mm * random_field(rng, grid, spacing_mm, 7.0)
    lobes_mm = look.lobes_mm * min(site.radius_mm / 10, 1.2)  # smaller on small lesions: none may fall apart
    distance += lobes_mm * random_field(rng, grid, spacing_mm, 4.0).clip(-1.6, 1.6)
    count = min(round(4 / 3 * np.pi * site.radius_mm**3 / float(np.prod(spacing_mm))), distance.size // 2)
    distance -= np.partition(distance, count, axis=None)[count]

    fine = random_field(rng, grid, spacing_mm, 1.1)
    coarse = random_field(rng, grid, spacing_mm, 3.4)
    septa = 2 * np.exp(-((random_field(rng, grid, spacing_mm, 4.0) / 0.3) ** 2)) - 0.5
    wall = occupancy(-distance - look.wall_mm, 1.0)
    pattern = look.fine * fine + look.coarse * coarse + look.septa * septa + look.wall * wall
    if look.spread_hu is not None:
        inside = pattern[distance < 0]
        pattern = (pattern - inside.mean()) * np.float32(look.spread_hu / inside.std())
    return occupancy(distance, look.edge_mm), np.float32(look.mean_hu) + pattern
