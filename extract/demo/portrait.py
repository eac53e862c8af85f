"""Where everything is in the portrait: contours of the lips, points that move with the jaw, points that hold still.

Read by eye off scikit-image's `astronaut` (512 x 512), in its pixels, with Dlib's 68 landmarks as a guide. She smiles
with her lips apart, so upper and lower lip each have an outer and an inner contour, from corner to corner.
"""

import numpy as np


def _points(text: str) -> np.ndarray:
    """ "x,y x,y ..." as (K, 2); "x,y,share ..." as (K, 3)."""
    return np.array([[float(number) for number in point.split(",")] for point in text.split()])


ZOOM = 1.5  # the face is 90 pixels wide in the portrait and 130 in LRW
ORIGIN = np.array([96.0, 2.0])  # the part of the portrait that is used, 260 pixels square
SIDE = 390  # of that part, zoomed
FACE_CENTRE = (np.array([225.0, 122.0]) - ORIGIN) * ZOOM  # between eyes and chin
PATCH = (170, 116, 280, 206)  # x0, y0, x1, y1: what moves

CORNERS = _points("203.2,139.6 245,140.9")
OUTER_UPPER = _points(
    "203.2,139.6 206,139.4 210,139.6 214,139.7 218.5,139.8 224.4,140.5 230,140 236,140.2 241,140.5 245,140.9"
)
INNER_UPPER = _points(
    "203.2,139.6 206,140.4 210,141.3 214,141.9 218.5,142.6 224.4,143.1 230,142.7 235,142.2 240,141.5 245,140.9"
)
INNER_LOWER = _points(
    "203.2,139.6 208.5,144 212,146.9 216,148.8 220,149.5 224.4,149.7 228,149.4 232,148.2 236,146.2 240,143.9 245,140.9"
)
OUTER_LOWER = _points(
    "203.2,139.6 207,145 211,149.6 215,152.4 219,154.2 223.5,155 228,154.3 233,152.2 237.5,149.2 241.5,145.4 245,140.9"
)

CHEEKS = _points("195,143 253.5,144.5")  # follow the corners by a third
CHIN = _points(  # and the share of the jaw's drop that each point takes
    "185.3,150.3,0.1 191.7,160.7,0.45 200.3,169,0.8 209.3,176,0.95 220.3,178.7,1 222,166,1 232,177.3,1 243,171.7,0.9 "
    "253,164,0.7 260.3,154.3,0.35"
)
STILL_ABOVE = _points(  # nose, cheekbones, and the jaw beyond the corners
    "213,131.5 219,133.5 225,135 231,133.5 237,132 190,128 196,120 258,128 254,120 183,145 268,146 225,119 192,160 258,160"
)
STILL_BELOW = _points(  # cheeks, neck, collar
    "183,139 268,135 178,165 184,178 192,186 206,192 222,195 240,191 253,184 262,175 270,165 205,203 222,205 240,203 256,196 268,186"
)
