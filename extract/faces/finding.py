"""Where the face of a clip comes from, as plain values: found by a detector, fixed, or given in files.

Ours; the paper detects the face in every frame. Importing it loads no library.

What `valid` says of a frame, by policy:

detect  The detector found the clip's face in this very frame. With `every` = k above 1 it looks at frames 0, k, 2k, … and at the
        last one: a frame in between is valid where the face was found in both of the looked-at frames around it.
        Its box is interpolated between theirs, its landmarks are measured in its own picture, in that box.
fixed   Every frame: the data set's pictures are known to hold the face, or the mouth, there. Nothing looks whether one is.
given   The frame has a row of numbers in the files: a frame that is absent there, or NaN, is not valid.

In frames that are not valid, boxes and landmarks are interpolated from those that are, nearest at the ends, and nothing is
measured. A clip without any valid frame has no face (NoFace). Boxes count in pixels of the pictures that the encoders get:
after the clip's own crop, if it has one; frames count from 0 at 25 a second from the start of the clip's cut.

Fixed boxes are (x0, y0, x1, y1), the end not included: what loaders of LRW write as `frame[115:211, 79:175]` (rows, then columns)
is (79, 115, 175, 211). A mouth box alone makes mouth crops without any model, and nothing else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...store.errors import UsageError
from .policy import FaceCrop, MouthCrop, check_choice

POLICIES = ("detect", "fixed", "given")
PICTURE = "picture"

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class FaceFinding:
    """How the face of each clip is found; see the module for what is valid.

    Attributes:
        policy: "detect", "fixed" or "given".
        every: detect in every so-manieth frame. 1: in all, as the paper does.
        face_box: fixed box of the face, as the detector would draw it; landmarks are then measured in it.
        mouth_box: fixed box of which mouth crops are made, whatever landmarks say; "picture": all of each picture, for
            data sets whose pictures are mouth crops already (LRW-1000).
        given: a folder with <clip id>.npy or .npz, or one .csv or .parquet file; see `given`.

    Raises:
        UsageError: options that don't go together, or a box that is none.
    """

    policy: str = "detect"
    every: int = 1
    face_box: Box | None = None
    mouth_box: Box | str | None = None
    given: Path | None = None

    def __post_init__(self) -> None:
        check_choice("face policy", self.policy, POLICIES)
        if type(self.every) is not int or self.every < 1:
            raise UsageError(f"face policy: every {self.every!r}, expected a whole number of at least 1")
        if self.every > 1 and not self.detects:
            raise UsageError(f'face policy "{self.policy}": every {self.every} is for the policy "detect" alone')
        for name, box in (("face_box", self.face_box), ("mouth_box", self.mouth_box)):
            if box is not None and self.policy != "fixed":
                raise UsageError(f'face policy "{self.policy}": {name} is for the policy "fixed" alone')
            if box is not None and (name, box) != ("mouth_box", PICTURE):
                _check_box(name, box)
        if self.policy == "fixed" and self.face_box is None and self.mouth_box is None:
            raise UsageError('face policy "fixed": expected face_box, mouth_box or both')
        if (self.given is not None) != (self.policy == "given"):
            raise UsageError('face policy "given" and its files go together: expected both or neither')

    @property
    def detects(self) -> bool:
        """A detector is needed."""
        return self.policy == "detect"

    @property
    def places_face(self) -> bool:
        """Clips get a face box and landmarks, so Dlib's model is needed; False: nothing but the box of the mouth."""
        return self.policy != "fixed" or self.face_box is not None

    def check_serves(self, crop: FaceCrop | MouthCrop | None, name: str) -> None:
        """Raises UsageError where clips will not have what a stream needs, before the first of them is read.

        Args:
            crop: of the stream; None: it takes landmarks as they are (dlib's face chip, occlusion, blur by the face's size).
            name: of the stream, for the error.
        """
        if not self.places_face and not isinstance(crop, MouthCrop):
            raise UsageError(
                f"{name}: needs the face, and a fixed mouth_box is all that there is; "
                "extract mouth streams alone, or say face_box too"
            )

    def describe(self) -> dict[str, Any]:
        """What shapes a Sight, for the stream specification; {} for the detector in every frame. Never a path.

        Reads all given files for their checksum.

        Raises:
            UsageError: they can't be read.
        """
        if self.detects:
            return {} if self.every == 1 else {"policy": "detect", "every": self.every, "between": "box interpolated"}
        if self.policy == "given":
            from .given import checksum

            return {"policy": "given", **checksum(self.given)}  # type: ignore[arg-type]
        described: dict[str, Any] = {"policy": "fixed"}
        if self.face_box is not None:
            described["face_box"] = list(self.face_box)
        if self.mouth_box is not None:
            described["mouth_box"] = PICTURE if self.mouth_box == PICTURE else list(self.mouth_box)
            described["mouth_crop"] = "square of the box's longer side, level, not smoothed"
        return described


def wanted_frames(n_frames: int, finding: FaceFinding) -> list[int]:
    """The frames that the detector has to see, ascending: every k-th from 0 on, and the last; none without a detector."""
    if not finding.detects or n_frames == 0:
        return []
    wanted = list(range(0, n_frames, finding.every))
    return wanted if wanted[-1] == n_frames - 1 else [*wanted, n_frames - 1]


def _check_box(name: str, box: Any) -> None:
    if not isinstance(box, tuple) or len(box) != 4 or any(type(v) is not int for v in box):
        also = f' or "{PICTURE}"' if name == "mouth_box" else ""
        raise UsageError(f"{name} {box!r}: expected four whole numbers of pixels, x0 y0 x1 y1{also}")
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise UsageError(f"{name} {box!r}: expected 0 <= x0 < x1 and 0 <= y0 < y1")
