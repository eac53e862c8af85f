"""How a crop is laid around a face or a mouth, as plain values: what `crops` carries out and a stream specification records.

*Source:* section 4.1.2 of the BalanceMLA paper: face crops of 128 x 128 from RetinaFace, grey mouth crops of 80 x 80 from
Dlib landmarks. It says neither how wide a crop is nor how it is aligned; that is ours. Importing it loads no library.

Two alignments. "similarity": the crop is turned upright and brought to scale by the landmarks that do not move in
speech (see `crops.alignment`). "box": it stays level with the picture.
"""

from dataclasses import dataclass
from typing import Any

from ...store.errors import UsageError

ALIGNMENTS = ("similarity", "box")
COLOURS = ("grey", "rgb")
RESAMPLING = "bilinear; block mean where it shrinks"


@dataclass(frozen=True)
class FaceCrop:
    """A square around the face.

    Attributes:
        size_px: side of the crop.
        margin: added on each side, as a share of the box's longer side. With 0.05 a face covers as much of the crop as in the
            pictures that facenet-pytorch's networks were trained with (MTCNN's box enlarged by a quarter, made square by
            stretching, which we don't do).
        sigma_frames: the place of the square is smoothed over time by a Gaussian, so that the picture does not shake.
        align: "box": level, around the detector's box; "similarity": turned upright by the landmarks, with the side
            that the detector's box has on average.
        colour: "rgb" or "grey".
    """

    size_px: int = 128
    margin: float = 0.05
    sigma_frames: float = 2.0
    align: str = "box"
    colour: str = "rgb"

    def __post_init__(self) -> None:
        if not (self.size_px >= 1 and self.margin > -0.5 and self.sigma_frames >= 0):
            raise UsageError(f"{self}: expected size_px of at least 1, margin above -0.5, sigma_frames of at least 0")
        check_choice("align", self.align, ALIGNMENTS)
        check_choice("colour", self.colour, COLOURS)

    def describe(self) -> dict[str, Any]:
        """For the stream specification."""
        policies = {"box": "square around the face box", "similarity": "face, aligned by eyes and nose"}
        return {
            "policy": policies[self.align],
            "size_px": self.size_px,
            "margin": self.margin,
            "sigma_frames": self.sigma_frames,
            **({"colour": "grey"} if self.colour == "grey" else {}),  # where nothing is said, a face is in colour
            "resampling": RESAMPLING,
        }


@dataclass(frozen=True)
class MouthCrop:
    """A square around the mouth.

    Attributes:
        size_px: side of the crop.
        width: side of the square in distances between the eyes: 1.5 reaches from the nose's base to the chin, about two mouths wide.
        sigma_frames: angle, scale and centre are smoothed over time by a Gaussian, so that lips move and the crop does not.
        align: "similarity": turned upright; "box": level. Either way the eyes give the scale, so that an opening mouth
            does not shrink in its own crop.
        colour: "grey" or "rgb".
    """

    size_px: int = 80
    width: float = 1.5
    sigma_frames: float = 2.0
    align: str = "similarity"
    colour: str = "grey"

    def __post_init__(self) -> None:
        if not (self.size_px >= 1 and self.width > 0 and self.sigma_frames >= 0):
            raise UsageError(f"{self}: expected size_px of at least 1, width above 0, sigma_frames of at least 0")
        check_choice("align", self.align, ALIGNMENTS)
        check_choice("colour", self.colour, COLOURS)

    def describe(self) -> dict[str, Any]:
        """For the stream specification."""
        policies = {"similarity": "mouth, aligned by eyes and nose", "box": "level square around the mouth"}
        return {
            "policy": policies[self.align],
            "size_px": self.size_px,
            "width": self.width,
            "sigma_frames": self.sigma_frames,
            "colour": self.colour,
            "resampling": RESAMPLING,
        }


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raises UsageError for a value that is not among the known ones."""
    if value not in known:
        raise UsageError(f'{name} "{value}" is not one of {", ".join(known)}')


FACE_CROP, MOUTH_CROP = FaceCrop(), MouthCrop()
