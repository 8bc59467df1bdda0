"""One case of the phantom: grid, anatomy, lesion and scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from nnunet_3dct.errors import SettingsError
from nnunet_3dct.phantom.anatomy import FAT_HU, Anatomy, gland_path, place_organs, place_vessels
from nnunet_3dct.phantom.fields import Lattice, Triple, blur_z, ellipsoid, occupancy, random_field, tube, without_crumbs
from nnunet_3dct.phantom.lesion import LOOKS, RADIUS_MM, LesionSite, draw_lesion, lesion_box
from nnunet_3dct.runtime import check_choice

_KNOT_MM = 3.0


@dataclass(frozen=True)
class PhantomCase:
    """One synthetic case.

    Attributes:
        image: int16 ``(Z, Y, X)`` in HU.
        label: uint8 of the same shape: 0 background, 1 pancreas, 2 lesion.
        spacing_mm: Voxel size along z, y, x.
        subtype: Class of the lesion.
    """

    image: np.ndarray
    label: np.ndarray
    spacing_mm: Triple
    subtype: int


def make_case(rng: np.random.Generator, subtype: int, difficulty: str) -> PhantomCase:
    """Draw one case.

    Grid, anatomy, and place and size of the lesion come from random streams that do not depend on the
    subtype: the same ``rng`` with another subtype gives the same body with another lesion in the same place.

    Args:
        rng: Source of all randomness.
        subtype: 0 solid, 1 cystic, 2 hypervascular.
        difficulty: ``easy``, or ``hard`` where no single intensity statistic tells the subtypes apart.

    Raises:
        SettingsError: If subtype or difficulty is unknown.
    """
    check_choice("difficulty", difficulty, LOOKS)
    if subtype not in (0, 1, 2):
        raise SettingsError(f"subtype: expected 0, 1 or 2, found {subtype!r}.")
    body_rng, lesion_rng, scan_rng = rng.spawn(3)

    lattice = draw_grid(body_rng)
    shape, spacing = lattice.shape, lattice.spacing_mm
    body = Anatomy(lattice, body_rng)
    path = gland_path(body_rng)
    site = draw_site(body, path)
    place_vessels(body, path)
    gland = place_gland(body, path, site)
    place_organs(body)

    image = paint(body)
    label = np.zeros(shape, dtype=np.uint8)
    paint_gland(image, label, lattice, gland, body_rng)

    box = lesion_box(site, shape, spacing)
    look = LOOKS[difficulty](lesion_rng, subtype)
    share, lesion_hu = draw_lesion(lesion_rng, site, look, box, shape, spacing)
    image[box] += share * (lesion_hu - image[box])

    label[box][share > 0.5] = 2
    return PhantomCase(scan(image, spacing, scan_rng), label, spacing, subtype)


def draw_grid(rng: np.random.Generator) -> Lattice:
    """Voxel size around 2.0 × 0.73 × 0.73 mm and a field of view around 118 × 86 × 132 mm."""
    z, xy = round(rng.uniform(1.7, 2.4), 2), round(rng.uniform(0.66, 0.81), 3)
    extent = rng.normal((118, 86, 132), (5, 2.5, 3.5)).clip((106, 80, 124), (130, 92, 140))
    nz, ny, nx = (round(e / s) for e, s in zip(extent, (z, xy, xy), strict=True))
    return Lattice((nz, ny, nx), (z, xy, xy), _KNOT_MM)


def draw_site(body: Anatomy, path: np.ndarray) -> LesionSite:
    """A lesion centred in the gland or up to its surface, anywhere from head to tail."""
    rng, lattice = body.rng, body.lattice
    radius = rng.uniform(*RADIUS_MM)
    axes = radius * np.exp(rng.normal(0, 0.1, 3))
    axes *= radius / np.prod(axes) ** (1 / 3)
    anchor = path[rng.integers(2, len(path) - 2)]
    outward = rng.normal(0, 1, 3)
    target = anchor[:3] + outward / np.linalg.norm(outward) * rng.uniform(0, 0.7) * anchor[3]
    squared = sum((p - t) ** 2 for p, t in zip(body.position, target, strict=True))
    nearest = np.unravel_index(np.argmin(squared), squared.shape)
    knot = [float(p.ravel()[i]) for p, i in zip(body.true_position, nearest, strict=True)]
    centre = np.array(knot) + rng.uniform(-_KNOT_MM / 2, _KNOT_MM / 2, 3)
    room = np.array(lattice.shape) * lattice.spacing_mm / 2 - 1.3 * axes - 1
    return LesionSite(np.clip(centre, -room, room).tolist(), axes.tolist(), radius)


def place_gland(body: Anatomy, path: np.ndarray, site: LesionSite) -> np.ndarray:
    """Signed distance of the pancreas, swollen around the lesion; the space of both is reserved."""
    rng = body.rng
    lesion = ellipsoid(body.true_position, site.centre_mm, site.axes_mm).astype(np.float32)
    uncinate = body.vary((-27, 8, -31, 9), (-33, 9, -20, 5.5), sd=1.5, n=8)
    gland = np.minimum(tube(body.position, path, height=1.35), tube(body.position, uncinate, height=1.2))
    gland = np.minimum(gland, lesion - rng.uniform(-4, 1.5))
    gland = body.reserve(gland + 0.5 * body.lattice.noise(rng, 6.0), 0.4, rng.uniform(0.7, 1.2))
    body.taken = np.minimum(body.taken, lesion)
    return gland


def paint(body: Anatomy) -> np.ndarray:
    """Attenuation of the body without the lesion and without noise, float32 ``(Z, Y, X)``."""
    rng, lattice = body.rng, body.lattice
    shape, spacing = lattice.shape, lattice.spacing_mm
    slow = lattice.voxels(2.5 * lattice.noise(rng, 18.0), lattice.whole)
    grain = random_field(rng, shape, spacing, 2.2)
    strands = np.exp(-((random_field(rng, shape, spacing, 4.5) / 0.22) ** 2))  # sheets where a field crosses zero
    image = FAT_HU + slow + 3 * grain + rng.uniform(8, 30) * strands * np.maximum(1 + 0.5 * slow, 0)
    for structure in body.structures:
        box = lattice.box_below(structure.distance, structure.edge_mm)
        if box is None:
            continue
        share = occupancy(lattice.voxels(structure.distance, box), structure.edge_mm)
        value = structure.hu + structure.texture_hu * grain[box] + slow[box]
        image[box] += share * (value - image[box])
    return image


def paint_gland(
    image: np.ndarray, label: np.ndarray, lattice: Lattice, gland: np.ndarray, rng: np.random.Generator
) -> None:
    """Add the pancreas, lobulated and with clefts of fat, to the image and as 1 to the label, in place."""
    box = lattice.box_below(gland, 4.0)
    if box is None:
        raise AssertionError("the gland lies outside the volume")
    distance = lattice.voxels(gland, box)
    lobes = random_field(rng, distance.shape, lattice.spacing_mm, 2.8).clip(-1.8, 1.8)
    distance += np.float32(rng.uniform(0.5, 0.9)) * lobes
    distance = without_crumbs(distance, share=0.03)
    grain = random_field(rng, distance.shape, lattice.spacing_mm, 1.8)
    clefts = np.maximum(lobes - 0.9, 0) * rng.uniform(15, 45)
    value = np.float32(rng.normal(101, 5)) + 6 * grain - clefts
    image[box] += occupancy(distance, 1.2) * (value - image[box])
    label[box][distance < 0] = 1


def scan(image: np.ndarray, spacing_mm: Triple, rng: np.random.Generator) -> np.ndarray:
    """Slice profile and correlated noise; returns int16 HU."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    for axis in (1, 2):
        noise = gaussian_filter1d(noise, 0.55 / spacing_mm[axis], axis=axis, truncate=2.5)
    noise = blur_z(noise, 0.12)
    noise *= np.float32(rng.uniform(8, 13)) / noise.std()
    return np.rint(blur_z(image, 0.14) + noise).clip(-1024, 3071).astype(np.int16)
