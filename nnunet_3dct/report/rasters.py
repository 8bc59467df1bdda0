"""Slices as PNG inside the page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

# of the longer side: keeps three slices below 1 MB even where they are noise, which PNG does not compress
SLICE_PIXELS, EVIDENCE_PIXELS = 480, 240
EVIDENCE_LEVELS = 32
# dark violet over red to yellow; brighter is more, also in print without colour
EVIDENCE_COLOURS = ((0.0, 0.5, 1.0), ((90, 0, 120), (225, 55, 75), (255, 235, 90)))
EVIDENCE_OPACITY = 0.75


def slice_png(values: np.ndarray, window: tuple[float, float]) -> str:
    """Encode a slice ``(H, W)`` in greys from black at the lower to white at the upper end of ``window``."""
    low, high = window
    greys = np.clip((np.nan_to_num(values.astype(np.float32), nan=low) - low) / (high - low), 0, 1)
    return _encode(_shrink(Image.fromarray(np.rint(255 * greys).astype(np.uint8)), SLICE_PIXELS))


def evidence_png(values: np.ndarray) -> str:
    """Encode evidence ``(H, W)`` in 0..1 as a coloured layer that is the more opaque, the higher it is."""
    small = _shrink(Image.fromarray(np.clip(np.nan_to_num(values), 0, 1).astype(np.float32)), EVIDENCE_PIXELS)
    levels = np.rint(np.clip(np.asarray(small), 0, 1) * (EVIDENCE_LEVELS - 1)).astype(np.uint8)
    layer = Image.fromarray(levels)
    layer.putpalette(evidence_colours(EVIDENCE_LEVELS).astype(np.uint8).tobytes())
    opacity = 255 * EVIDENCE_OPACITY * np.linspace(0, 1, EVIDENCE_LEVELS) ** 0.7
    return _encode(layer, transparency=opacity.astype(np.uint8).tobytes())


def evidence_colours(levels: int) -> np.ndarray:
    """Return the colours ``(levels, 3)`` of evidence from 0 to 1, 0 to 255."""
    positions, colours = EVIDENCE_COLOURS
    at = np.linspace(0, 1, levels)
    return np.stack([np.interp(at, positions, [c[k] for c in colours]) for k in range(3)], axis=1)


def _shrink(image: Image.Image, longest: int) -> Image.Image:
    width, height = (min(side, longest) for side in image.size)
    return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BOX)


def _encode(image: Image.Image, **options: bytes) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, **options)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
