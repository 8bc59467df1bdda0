"""The upper abdomen around the pancreas: a list of structures, none overlapping another.

Each structure is a signed distance on a coarse lattice with a mean attenuation. They are placed in order of
priority; a later one keeps a layer of fat between itself and all earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nnunet_3dct.phantom.fields import Lattice, curve, ellipsoid, tube

FAT_HU = -103.0


@dataclass
class Structure:
    """A region with its look.

    Attributes:
        distance: Signed distance on the lattice (mm).
        hu: Mean attenuation.
        texture_hu: Standard deviation of its parenchyma.
        edge_mm: Width of its edge in the image.
    """

    distance: np.ndarray
    hu: float
    texture_hu: float = 3.0
    edge_mm: float = 1.5


@dataclass
class Anatomy:
    """Places structures on the lattice.

    ``position`` is warped and turned, so that the same numbers give another body in every case.
    """

    lattice: Lattice
    rng: np.random.Generator
    structures: list[Structure] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng, lattice = self.rng, self.lattice
        self.true_position = lattice.positions()
        angle, scale = rng.normal(0, 0.09), rng.normal(1, 0.05)
        z, y, x = self.true_position
        turned = (z, y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle))
        self.position = [
            ((p + 2.2 * lattice.noise(rng, 11.0)) / scale + rng.normal(0, 2)).astype(np.float32) for p in turned
        ]
        self.taken = np.full(lattice.knots, 1e3, dtype=np.float32)

    def vary(self, *control: tuple[float, ...], sd: float = 3.0, n: int = 24) -> np.ndarray:
        """A path through the control points (z, y, x, radius), each moved by ``sd`` mm."""
        points = np.array(control, dtype=float)
        points[:, :3] += self.rng.normal(0, sd, (len(points), 3))
        points[:, 3] *= self.rng.normal(1, 0.07)
        return curve(points, n)

    def around(self, *centre: float, sd: float = 4.0) -> list[float]:
        """A position near ``centre``."""
        return [float(c + self.rng.normal(0, sd)) for c in centre]

    def reserve(self, distance: np.ndarray, gap_mm: float, rough_mm: float = 0.6) -> np.ndarray:
        """Give a region an uneven outline, cut it back from all earlier ones by ``gap_mm`` and note it."""
        distance = distance + rough_mm * self.lattice.noise(self.rng, 3.5)
        distance = np.maximum(distance, gap_mm - self.taken)
        self.taken = np.minimum(self.taken, distance)
        return distance

    def place(
        self,
        distance: np.ndarray,
        hu: float,
        *,
        gap_mm: float = 1.5,
        rough_mm: float = 0.6,
        texture_hu: float = 3,
    ) -> np.ndarray:
        """Add a solid structure; returns the distance it ended up with."""
        distance = self.reserve(distance, gap_mm, rough_mm)
        self.structures.append(Structure(distance, hu + self.rng.normal(0, 3), texture_hu))
        return distance

    def place_bowel(self, distance: np.ndarray, wall_mm: float, content_hu: float, gas: float) -> None:
        """Add a hollow structure: enhancing wall, content, and gas above a level in front (share ``gas``)."""
        outer = self.place(distance, 62, rough_mm=1.0)
        lumen = outer + wall_mm + 0.5 * self.lattice.noise(self.rng, 4.0)
        self.structures.append(Structure(lumen, content_hu, 9.0, 2.0))
        inside = lumen < -1
        if self.rng.random() < gas and inside.sum() > 20:
            level = np.quantile(self.position[1][inside], self.rng.uniform(0.1, 0.5))
            bubble = np.maximum(lumen + 0.8, self.position[1] - np.float32(level))
            self.structures.append(Structure(bubble, -850.0, 8.0, 2.0))


def gland_path(rng: np.random.Generator) -> np.ndarray:
    """Middle line of the pancreas from head to tail, ``(n, 4)``: z, y, x, radius (mm)."""
    arch, rise = rng.normal(0, 4.0), rng.normal(0, 5.0)
    size = rng.normal(1, 0.09)
    points = np.array(
        [
            [-27, 6, -33, 11.0],
            [-16, -1, -33, 13.5],
            [-5, -11, -17, 9.0],
            [1 + 0.4 * rise, -15 + arch, -1, 8.0],
            [7 + 0.8 * rise, -13 + arch, 16, 9.0],
            [13 + rise, -3 + 0.5 * arch, 34, 8.5],
            [18 + 1.3 * rise, 9, 50, 5.5],
        ]
    )
    points[:, :3] += rng.normal(0, 1.8, (7, 3))
    points[:, 3] *= size * rng.normal(1, 0.06, 7)
    return curve(points, 44)


def place_vessels(body: Anatomy, gland: np.ndarray) -> None:
    """Portal-venous phase: mesenteric, portal and splenic vein, aorta and its branches, vena cava."""
    rng = body.rng
    vein = rng.normal(168, 6)
    confluence = gland[14, :3] + np.array([-1, 11, 0])
    zc, yc, xc = (float(v) for v in confluence)
    mesenteric = body.vary((-75, -2, -8, 4.5), (-40, 1, -9, 5), (zc - 10, yc, xc, 6), (zc, yc, xc, 6.5), sd=1.0)
    portal = body.vary((zc, yc, xc, 6.5), (zc + 18, yc - 1, xc - 14, 6), (zc + 50, yc - 6, xc - 40, 6), sd=1.0)
    behind = gland[14:41:4, :3] + np.stack(
        [rng.normal(2, 1, 7), gland[14:41:4, 3] + rng.normal(1.5, 0.8, 7), np.zeros(7)], axis=1
    )
    splenic = curve(np.c_[np.r_[confluence[None], behind], np.linspace(4.6, 3.4, 8)], 36)
    veins = [tube(body.position, path) for path in (mesenteric, portal, splenic)]
    body.place(np.minimum.reduce(veins), vein, rough_mm=0.3, texture_hu=2)
    artery = vein - rng.uniform(0, 12)
    aorta = body.vary((-75, 24, 4, 8.5), (0, 23, 4, 9), (75, 25, 2, 10), sd=1.5)
    root = body.vary((8, 16, 3, 4), (-2, 6, 3, 3.8), (-30, 3, 2, 3.4), (-75, -2, 0, 3), sd=1.0)
    over = gland[16:42:5] + np.array([8, 2, 0, 0])
    over[:, 1] += rng.normal(0, 4, len(over))
    over[:, 3] = 2.6
    paths = (aorta, root, curve(np.r_[[[22, 16, 3, 3.0]], over], 40))
    arteries = [tube(body.position, path) for path in paths]
    body.place(np.minimum.reduce(arteries), artery, gap_mm=0.8, rough_mm=0.2, texture_hu=2)
    cava = body.vary((-75, 22, -19, 8), (0, 20, -20, 9), (75, 12, -24, 10), sd=2.0)
    body.place(tube(body.position, cava), vein - 22, rough_mm=0.8, texture_hu=4)


def place_organs(body: Anatomy) -> None:
    """Bowel, stomach, spine, muscle, kidneys, spleen, liver and small vessels in the fat."""
    rng, pos = body.rng, body.position
    duodenum = body.vary(
        (10, -22, -34, 10),
        (4, -8, -56, 11),
        (-25, 4, -56, 11),
        (-48, 9, -36, 10),
        (-50, 10, 8, 9),
        (-42, 0, 30, 9),
    )
    body.place_bowel(tube(pos, duodenum), 2.5, rng.normal(28, 8), 0.5)
    stomach = body.vary((66, -12, 52, 24), (28, -36, 42, 20), (8, -44, 8, 15), (10, -36, -22, 11), sd=4, n=30)
    body.place_bowel(tube(pos, stomach), 3.5, rng.normal(25, 8), 0.8)
    colon = body.vary((-30, -30, -70, 15), (-44, -40, -25, 14), (-46, -44, 20, 15), (-15, -34, 66, 14), sd=5, n=30)
    body.place_bowel(tube(pos, colon), 2.0, rng.normal(15, 12), 0.9)
    for _ in range(6):
        z, y, x = rng.uniform((-60, -34, -5), (4, 12, 62))
        loop = body.vary((z, y, x - 16, 8), (z - 6, y - 9, x, 9), (z + 2, y + 6, x + 14, 8), sd=4, n=16)
        body.place_bowel(tube(pos, loop), 2.5, rng.normal(35, 8), 0.2)
    place_spine(body)
    for side in (-1.0, 1.0):
        muscle = body.vary((-75, 46, 32 * side, 17), (0, 46, 25 * side, 11), (75, 46, 20 * side, 4), sd=2)
        body.place(tube(pos, muscle), 57)
        crus = body.vary((-20, 30, 11 * side, 4), (20, 26, 13 * side, 5), (75, 22, 15 * side, 6), sd=1)
        body.place(tube(pos, crus), 57, gap_mm=0.5)
        low = 0.0 if side > 0 else -10.0
        kidney = ellipsoid(pos, body.around(-18 + low, 37, 52 * side), (52, 23, 25))
        cortex = body.place(kidney, 172, gap_mm=3)
        body.structures.append(Structure(cortex + 6 + 2.5 * body.lattice.noise(rng, 4), 138, 6, 3.0))
        body.structures.append(Structure(cortex + 15 + 2.5 * body.lattice.noise(rng, 3), -70, 6, 2.0))
    body.place(ellipsoid(pos, body.around(48, 16, 82), (46, 40, 26)), 112, gap_mm=2)
    right = ellipsoid(pos, body.around(44, -14, -82), (62, 60, 46))
    left = ellipsoid(pos, body.around(56, -44, -26), (26, 24, 52))
    body.place(np.minimum(right, left), 98, gap_mm=2, texture_hu=4)
    for _ in range(6):
        z, y, x = rng.uniform((-50, -38, -55), (30, 10, 55))
        twig = body.vary((z, y, x, 2.2), (z - 9, y - 5, x + 7, 2.2), (z - 20, y - 8, x + 10, 2.0), sd=3, n=12)
        body.place(tube(pos, twig), 130, gap_mm=0.5, rough_mm=0.1)


def place_spine(body: Anatomy) -> None:
    """Vertebral bodies with a cortical shell and discs between them."""
    z, y, x = body.position
    column = np.sqrt(((y - 54) / 17) ** 2 + ((x + body.rng.normal(0, 1.5)) / 22) ** 2)
    height = (z + body.rng.uniform(0, 36)) % 36
    waist = (1 - 0.04 * np.cos(2 * np.pi * height / 36)).astype(np.float32)
    bone = body.place(((column / waist) - 1) * 17, 90, gap_mm=2)
    vertebra = np.maximum(bone, np.abs(height - 18) - 14.5)
    body.structures.append(Structure(vertebra, 330, 25, 2.0))
    body.structures.append(Structure(vertebra + 2.0, 175, 25, 2.5))
