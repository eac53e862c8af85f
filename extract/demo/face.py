"""A portrait that speaks: mouth shapes in, (H, W, 3) uint8 pictures of the whole head out.

The portrait is scikit-image's `astronaut`: Eileen Collins, photographed by NASA, public domain. She smiles with her lips
apart. Two smooth warps (thin-plate splines), one of all that lies above the line of the lips and one of all below it,
carry upper lip, lower lip, chin and cheeks to a mouth shape; between them the inside of the mouth is painted: dark, her
own upper teeth, a tongue. Lengths are in pixels of the portrait; the pictures are ZOOM times as large.

Shape legend: S = 9 places from the left corner of the mouth (s = -1) to the right one (s = 1); h x w: the patch.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from .portrait import (
    CHEEKS,
    CHIN,
    CORNERS,
    INNER_LOWER,
    INNER_UPPER,
    ORIGIN,
    OUTER_LOWER,
    OUTER_UPPER,
    PATCH,
    SIDE,
    STILL_ABOVE,
    STILL_BELOW,
    ZOOM,
)

GRID = 8  # zoomed pixels between the nodes where a spline is evaluated
PLACES = np.linspace(-1, 1, 9)  # s

DARK = np.array([46, 20, 20], np.float32)
TONGUE = np.array([158, 88, 84], np.float32)


@dataclass(frozen=True)
class Lips:
    """Contours of one mouth shape: (S, 2) each, from corner to corner. chin_drop in pixels."""

    outer_upper: np.ndarray
    inner_upper: np.ndarray
    inner_lower: np.ndarray
    outer_lower: np.ndarray
    chin_drop: float


def lips_of(shape: np.ndarray) -> Lips:
    """The contours of a mouth shape, given as the six parameters of visemes.SHAPE."""
    opening, spread, rounding, press, tuck, _ = (float(v) for v in shape)
    parting = 13.0 * opening  # between the lips, in the middle
    half = 18.6 + 2.6 * spread - 6.2 * rounding
    x = CORNERS[:, 0].mean() + half * PLACES
    corner_y = 143.6 - 1.4 * spread + 0.12 * parting + 0.6 * rounding
    along = np.abs(PLACES)
    line = corner_y + (145.4 - corner_y) * (1 - along**2)
    bow = 1 - along**2.4
    upper = line - (0.22 * parting + 1.7 * tuck) * bow
    lower = line + (0.78 * parting + 2.8 * tuck) * bow
    cupid = 1 - 0.15 * np.exp(-((PLACES / 0.18) ** 2))
    upper_thick = 4.6 * (1 + 0.35 * rounding - 0.5 * press) * (1 - along**1.8) * cupid
    lower_thick = 5.8 * (1 + 0.3 * rounding - 0.5 * press - 0.45 * tuck) * (1 - along**2)
    return Lips(
        outer_upper=np.stack([x, upper - upper_thick], 1),
        inner_upper=np.stack([x, upper], 1),
        inner_lower=np.stack([x, lower], 1),
        outer_lower=np.stack([x, lower + lower_thick], 1),
        chin_drop=0.72 * parting,
    )


class TalkingFace:
    """The prepared portrait; `picture` gives one frame. image: (512, 512, 3) uint8 RGB, scikit-image's astronaut."""

    def __init__(self, image: np.ndarray):
        zoom = np.array([[ZOOM, 0, -ZOOM * ORIGIN[0]], [0, ZOOM, -ZOOM * ORIGIN[1]]])
        self._still = cv2.warpAffine(image, zoom, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        low, high = _zoomed(np.array(PATCH, float).reshape(2, 2)).round().astype(int)
        self._box = slice(low[1], high[1]), slice(low[0], high[0])
        self._x, self._y = np.arange(low[0], high[0], dtype=np.float32), np.arange(low[1], high[1], dtype=np.float32)
        size = len(self._x), len(self._y)
        across = np.minimum(self._x - low[0], high[0] - 1 - self._x)
        down = np.minimum(self._y - low[1], high[1] - 1 - self._y)
        edge = np.clip(np.minimum(across[None, :], down[:, None]) / 12, 0, 1)
        self._inside = (edge * edge * (3 - 2 * edge)).astype(
            np.float32
        )  # (h, w): 0 at the patch's edge, so that nothing tears there
        nodes_x, nodes_y = (np.linspace(v[0], v[-1], len(v) // GRID) for v in (self._x, self._y))
        self._nodes = np.stack(np.meshgrid(nodes_x, nodes_y), -1)  # (gh, gw, 2)
        self._size = size
        self._teeth = self._her_teeth()

    def picture(self, shape: np.ndarray) -> np.ndarray:
        """(SIDE, SIDE, 3) uint8: the head with this mouth, shape as in visemes.SHAPE."""
        lips = lips_of(shape)
        above, below = self._halves(lips)
        upper_y, lower_y = (
            np.interp(self._x, *_zoomed(c).T).astype(np.float32) for c in (lips.inner_upper, lips.inner_lower)
        )
        left, right = _zoomed(lips.inner_upper[[0, -1]])[:, 0]
        beyond = np.maximum(np.maximum(left - self._x, self._x - right), 0).astype(np.float32)  # (w,) outside the mouth
        soft = 1.1 + np.minimum(0.8 * beyond, 10)
        is_above = np.clip((upper_y - self._y[:, None]) / soft + 0.5, 0, 1)[..., None]
        patch = below + is_above * (above - below)
        box = self._mouth_box(lips)
        upper_y, lower_y, y = upper_y[box[1]], lower_y[box[1]], self._y[box[0], None]
        is_inside = np.clip((y - upper_y) / 1.1 + 0.5, 0, 1) * np.clip((lower_y - y) / 1.1 + 0.5, 0, 1)
        seam = np.exp(
            -(((y - (upper_y + lower_y) / 2) / 1.3) ** 2) - (lower_y - upper_y) / 2
        )  # a dark line where lips meet
        is_mouth = (beyond[box[1]] == 0)[:, None]
        inner = self._inner_mouth(shape, box, upper_y, lower_y)
        patch[box] += is_inside[..., None] * is_mouth * (inner - patch[box])
        patch[box] *= 1 - 0.45 * seam[..., None] * is_mouth
        picture = self._still.copy()
        picture[self._box] = cv2.convertScaleAbs(patch)
        return picture

    def _mouth_box(self, lips: Lips) -> tuple[slice, slice]:
        """Rows and columns of the patch that hold the inside of the mouth, with some pixels around it."""
        origin = np.array([self._x[0], self._y[0]])
        low = _zoomed(np.minimum(lips.inner_upper.min(0), lips.inner_lower.min(0))) - origin - 4
        high = _zoomed(np.maximum(lips.inner_upper.max(0), lips.inner_lower.max(0))) - origin + 5
        return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))

    def _halves(self, lips: Lips) -> tuple[np.ndarray, np.ndarray]:
        """The patch warped as the face above the line of the lips, and as the face below it: (h, w, 3) float32."""
        moved_cheeks = CHEEKS + (lips.inner_upper[[0, -1]] - CORNERS) / 3
        inner = slice(1, -1)
        above = self._warped(
            np.concatenate([_at_places(OUTER_UPPER), _at_places(INNER_UPPER)[inner], CHEEKS, STILL_ABOVE]),
            np.concatenate([lips.outer_upper, lips.inner_upper[inner], moved_cheeks, STILL_ABOVE]),
        )
        dropped = CHIN[:, :2] + np.stack([np.zeros(len(CHIN)), CHIN[:, 2] * lips.chin_drop], 1)
        below = self._warped(
            np.concatenate([_at_places(INNER_LOWER), _at_places(OUTER_LOWER)[inner], CHEEKS, CHIN[:, :2], STILL_BELOW]),
            np.concatenate([lips.inner_lower, lips.outer_lower[inner], moved_cheeks, dropped, STILL_BELOW]),
        )
        return above, below

    def _warped(self, origin: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The patch of a picture in which each point of `origin` (K, 2) has moved to its `target`."""
        shift = _spline(_zoomed(target), _zoomed(origin) - _zoomed(target), self._nodes).astype(np.float32)
        shift = cv2.resize(shift, self._size, interpolation=cv2.INTER_CUBIC) * self._inside[..., None]
        map_x, map_y = self._x[None, :] + shift[..., 0], self._y[:, None] + shift[..., 1]
        moved = cv2.remap(
            self._still,
            map_x.astype(np.float32),
            map_y.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return moved.astype(np.float32)

    def _inner_mouth(
        self, shape: np.ndarray, box: tuple[slice, slice], upper_y: np.ndarray, lower_y: np.ndarray
    ) -> np.ndarray:
        """Darkness, tongue and upper teeth in this box of the patch, to be seen between upper_y and lower_y: float32."""
        opening, _, rounding, _, _, tongue = (float(v) for v in shape)
        x, y = self._x[box[1]], self._y[box[0], None]
        colour, seen = (layer[box] for layer in self._teeth)
        across = (x - float(_zoomed(np.array([224.1, 0.0]))[0])) / ((13 - 5 * rounding) * ZOOM)
        shade = 0.86 - 0.25 * rounding - 0.25 * np.clip(np.abs(across) - 0.6, 0, 1)
        inside = DARK + (seen * (1 - 0.5 * rounding))[..., None] * (colour * shade[None, :, None] - DARK)
        rise = (0.25 + 0.75 * tongue) * (lower_y - upper_y) * np.clip(1 - across**2, 0, 1)
        tongue_seen = np.clip((y - (lower_y - rise)) / 2.5, 0, 1) * (0.55 + 0.45 * tongue) * (rise > 0.5)
        inside += tongue_seen[..., None] * (TONGUE * (0.62 + 0.38 * tongue) - inside)
        shadow = np.clip((y - upper_y) / (1.5 + 2 * opening * ZOOM), 0.7, 1)  # the upper lip's
        return (inside * shadow[..., None]).astype(np.float32)

    def _her_teeth(self) -> tuple[np.ndarray, np.ndarray]:
        """Her upper teeth: colour (h, w, 3) float32, carried on upwards under the lip, and how much of them is there (h, w)."""
        top, bottom = (np.interp(self._x, *_zoomed(c).T).astype(np.float32) for c in (INNER_UPPER, INNER_LOWER))
        x = np.broadcast_to(self._x, self._inside.shape).astype(np.float32)
        y = np.maximum(self._y[:, None], np.minimum(top + 2.5, (top + bottom) / 2)).astype(np.float32)
        colour = cv2.remap(self._still, x, y, cv2.INTER_LINEAR).astype(np.float32)
        ends = np.clip(np.minimum(self._x - _zoomed(CORNERS[0])[0], _zoomed(CORNERS[1])[0] - self._x) / 8, 0, 1)
        return colour, (np.clip((bottom - 1 - self._y[:, None]) / 1.5 + 0.5, 0, 1) * ends).astype(np.float32)


def _zoomed(points: np.ndarray) -> np.ndarray:
    """Pixels of the portrait to pixels of the zoomed part."""
    return (points - ORIGIN) * ZOOM


def _at_places(contour: np.ndarray) -> np.ndarray:
    """(S, 2): the contour's points at the places s, by their x."""
    x = CORNERS[:, 0].mean() + (CORNERS[1, 0] - CORNERS[0, 0]) / 2 * PLACES
    return np.stack([x, np.interp(x, contour[:, 0], contour[:, 1])], 1)


def _spline(points: np.ndarray, values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Thin-plate spline through values (K, 2) at points (K, 2), evaluated at where (..., 2): the smoothest bent sheet."""
    count = len(points)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _bending(points, points)
    system[:count, count:] = np.concatenate([np.ones((count, 1)), points], 1)
    system[count:, :count] = system[:count, count:].T
    weights = np.linalg.solve(system, np.concatenate([values, np.zeros((3, 2))]))
    flat = where.reshape(-1, 2)
    spline = _bending(flat, points) @ weights[:count] + weights[count] + flat @ weights[count + 1 :]
    return spline.reshape(where.shape)


def _bending(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B): r^2 log r^2 of all distances r."""
    squared = np.subtract.outer(a[:, 0], b[:, 0]) ** 2 + np.subtract.outer(a[:, 1], b[:, 1]) ** 2
    return squared * np.log(squared + 1e-9)
