"""The map as a picture: numbers in, PNG bytes out, for browsers without WebGL2 and for pages without a server.

Each point adds its colour, weighted by -ln(1 - alpha), to the pixels that it covers; a pixel shows the mean colour
under 1 - exp(-weight), whatever the order of the points: as dashboard/assets/atlas/pixels.mjs does in the browser.
"""

import struct
import zlib

import numpy as np

from dashboard.figures.theme import Scale, Theme

BRIGHT, DIMMED, HIDDEN = 2, 1, 0


def rgb(colour: str) -> np.ndarray:
    """`"#2f74d0"` -> `[47, 116, 208]`"""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


def scale_colours(values: np.ndarray, scale: Scale, noise: str) -> np.ndarray:
    """`[n, 3]`: colours of numbers between their 1st and 99th hundredth; NaN takes the colour of noise."""
    known = np.isfinite(values)
    low, high = np.percentile(values[known], [1, 99]) if known.any() else (0.0, 1.0)
    t = np.clip((np.where(known, values, low) - low) / ((high - low) or 1.0), 0, 1)
    stops = np.array([at for at, _ in scale])
    colours = np.stack([rgb(colour) for _, colour in scale])
    mixed = np.stack([np.interp(t, stops, colours[:, channel]) for channel in range(3)], axis=1)
    return np.where(known[:, None], mixed, rgb(noise))


def category_colours(slots: np.ndarray, theme: Theme) -> np.ndarray:
    """`[n, 3]`: slot 0 is noise, slot k the k-th colour of points."""
    return np.stack([rgb(theme.noise), *map(rgb, theme.points)])[slots]


def dot_size(n: int, nearer: float) -> tuple[float, float]:
    """Radius in pixels and opacity of `n` points at `nearer` times the zoom that shows all; as in looks.mjs."""
    start = float(np.clip(420 / np.sqrt(max(n, 1)), 1.1, 7)) / 2
    opacity = 0.5 if n > 300_000 else 0.66 if n > 60_000 else 0.82
    return min(start * nearer**0.42, 8.0), min(0.92, opacity * nearer**0.2)


def picture(
    xy: np.ndarray,
    colours: np.ndarray,
    shown: np.ndarray,
    theme: Theme,
    *,
    box: tuple[float, float, float, float],
    width: int,
    height: int,
    radius: float,
    opacity: float,
) -> bytes:
    """PNG of the points `xy [n, 2]` that lie in `box` (x0, y0, x1, y1), on a transparent ground.

    `colours [n, 3]` 0 to 255; `shown [n]`: 2 bright, 1 dimmed, 0 not drawn.
    """  # fmt: skip
    x0, y0, x1, y1 = box
    column = np.floor((xy[:, 0] - x0) * (width / (x1 - x0))).astype(np.int64)
    row = np.floor((y1 - xy[:, 1]) * (height / (y1 - y0))).astype(np.int64)
    reach = int(np.ceil(radius + 0.5)) - 1
    seen = (column >= -reach) & (column < width + reach) & (row >= -reach) & (row < height + reach) & (shown > 0)
    column, row, colours, shown = column[seen], row[seen], colours[seen], shown[seen]
    selecting = bool((shown == DIMMED).any())
    weight = -np.log(1 - np.where(shown == BRIGHT, opacity, 0.38 * opacity + 0.04)) * np.where(
        (shown == BRIGHT) & selecting, 8.0, 1.0
    )
    ink = np.where((shown == BRIGHT)[:, None], colours, 0.2 * colours + 0.8 * rgb(theme.noise))
    sums = np.zeros((height * width, 4))
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            cover = min(1.0, radius + 0.5 - float(np.hypot(dx, dy)))
            if cover > 0.08:
                _add(sums, row + dy, column + dx, ink, weight * cover, width, height)
    return png(_developed(sums).reshape(height, width, 4))


def _add(
    sums: np.ndarray, row: np.ndarray, column: np.ndarray, ink: np.ndarray, weight: np.ndarray, width: int, height: int
) -> None:
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    at, heavy = row[inside] * width + column[inside], weight[inside]
    for channel in range(3):
        sums[:, channel] += np.bincount(at, heavy * ink[inside, channel], len(sums))
    sums[:, 3] += np.bincount(at, heavy, len(sums))


def _developed(sums: np.ndarray) -> np.ndarray:
    """`[pixels, 4]` uint8, straight alpha."""
    weight = sums[:, 3:]
    mean = sums[:, :3] / np.where(weight > 0, weight, 1)
    return np.concatenate([mean, 255 * (1 - np.exp(-weight))], axis=1).round().astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """A PNG file of `image [height, width, 4]` uint8 RGBA, straight alpha."""
    height, width, _ = image.shape
    lines = np.zeros((height, 1 + 4 * width), np.uint8)  # the first byte of a line says: not filtered
    lines[:, 1:] = image.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", head),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), 1)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
