"""What an encoder of pictures is given: each clip's frames with the track and the landmarks of its one face.

The steps can run in different processes: `finding.wanted_frames` says what the detector has to see, `FaceDetector` sees it on
its device, `look` does all the rest on a CPU and needs no network.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...store.errors import BmlaError, MediaError, NoFace
from ..encoders.base import Sight
from .crops import boxes_of
from .detections import Faces
from .finding import PICTURE, FaceFinding, wanted_frames
from .given import GivenFaces
from .landmarks import POINTS, Landmarks68
from .smoothing import fill_gaps, smooth_valid
from .track import choose_track, describe_track, spread

if TYPE_CHECKING:
    from .detector import FaceDetector

LANDMARK_SIGMA_FRAMES = 1.0  # cuts dlib's jitter to a third and keeps what lips do at 25 frames a second


def see(
    clips: Sequence[np.ndarray], detector: "FaceDetector", landmarks: Landmarks68, finding: FaceFinding | None = None
) -> list[Sight | BmlaError]:
    """Finds, follows and measures the face of each clip, all steps in this process.

    Each clip is a batch of its own: it fills the detector's chunks, and no clip can change another's numbers.

    Args:
        clips: each (T, H, W, 3) uint8 RGB at 25 frames a second.
        finding: by a detector; None: in every frame.

    Returns:
        One result a clip: a Sight or, where no frame has a face, the NoFace to be recorded.
    """
    finding = finding or FaceFinding()
    results: list[Sight | BmlaError] = []
    for frames in clips:
        wanted = wanted_frames(len(frames), finding)
        found = detector.detect(frames if len(wanted) == len(frames) else frames[wanted])
        try:
            results.append(look(frames, found, landmarks, finding))
        except NoFace as error:
            results.append(error)
    return results


def look(
    frames: np.ndarray,
    detections: Sequence[Faces],
    landmarks: Landmarks68 | None,
    finding: FaceFinding,
    clip_id: str = "",
    given: GivenFaces | None = None,
) -> Sight:
    """One clip's face. Where it was not found its landmarks are interpolated, not predicted from a guessed box.

    Args:
        frames: (T, H, W, 3) uint8 RGB at 25 frames a second.
        detections: those of the frames that `wanted_frames` names, in order; none for fixed and given faces.
        landmarks: None will do where `finding.places_face` is False.
        clip_id: under which given faces are kept.
        given: the opened `finding.given`, for the policy "given".

    Raises:
        NoFace: no frame has a face.
        MediaError: a fixed box reaches out of the clip's pictures, or its given faces are missing, damaged or far outside.
    """
    if finding.policy == "fixed":
        return _look_at_fixed(frames, landmarks, finding, clip_id)
    if finding.policy == "given":
        assert given is not None, "the caller opens finding.given"
        return _look_at_given(frames, landmarks, given, clip_id)
    looked_at = wanted_frames(len(frames), finding)
    assert len(detections) == len(looked_at)
    track = spread(choose_track(detections, len(frames)), looked_at, len(frames))
    points = _measure(frames, track.boxes, track.valid, landmarks, track.points)
    return Sight(frames, track.boxes, points, track.valid, track.scores)


def describe_sight(
    detector: "FaceDetector | None", landmarks: Landmarks68 | None, finding: FaceFinding | None = None
) -> dict[str, Any]:
    """All that shapes a Sight, for the stream specification.

    Args:
        detector: None will do where `finding.detects` is False.
        landmarks: None will do where `finding.places_face` is False.

    Raises:
        UsageError: given files can't be read.
    """
    finding = finding or FaceFinding()
    described = finding.describe()
    if finding.detects:
        assert detector is not None
        described = {**detector.describe(), **described, "track": describe_track()}
    if finding.places_face:
        assert landmarks is not None
        smoothing = {"window": "gaussian", "sigma_frames": LANDMARK_SIGMA_FRAMES}
        described["landmarks"] = {**landmarks.describe(), "smoothing": smoothing}
    return described


def _look_at_fixed(frames: np.ndarray, landmarks: Landmarks68 | None, finding: FaceFinding, clip_id: str) -> Sight:
    T, H, W, _ = frames.shape
    if T == 0:
        raise NoFace("no face in a clip of 0 frames")
    for name, box in (("face_box", finding.face_box), ("mouth_box", finding.mouth_box)):
        if isinstance(box, tuple) and (box[2] > W or box[3] > H):
            raise MediaError(f'clip "{clip_id}": {name} {box} does not lie inside its pictures of {W} x {H}')
    mouth = (0, 0, W, H) if finding.mouth_box == PICTURE else finding.mouth_box
    valid, unseen = np.ones(T, bool), np.full(T, np.nan, np.float32)
    boxes, points = np.full((T, 4), np.nan, np.float32), np.full((T, POINTS, 2), np.nan, np.float32)
    if finding.face_box is not None:
        boxes[:] = finding.face_box
        points = _measure(frames, boxes, valid, landmarks)
    mouths = None if mouth is None else np.tile(np.array(mouth, np.float32), (T, 1))
    return Sight(frames, boxes, points, valid, unseen, mouths)


def _look_at_given(frames: np.ndarray, landmarks: Landmarks68 | None, given: GivenFaces, clip_id: str) -> Sight:
    T = len(frames)
    faces = given.of(clip_id, T)
    valid = np.ones(T, bool)
    for part in (faces.boxes, faces.landmarks):
        if part is not None:
            valid &= np.isfinite(part).all(axis=tuple(range(1, part.ndim)))
    if not valid.any():
        raise NoFace(f"no face given in any of {T} frames")
    for name, part in (("box", faces.boxes), ("landmarks", faces.landmarks)):
        if part is not None:
            _check_near(part[valid], frames, f'clip "{clip_id}": given {name}')
    points = None if faces.landmarks is None else fill_gaps(faces.landmarks, valid)
    if faces.boxes is not None:
        boxes = fill_gaps(faces.boxes, valid)
    else:
        assert points is not None, "given faces are boxes or landmarks"
        boxes = boxes_of(points)
        if not (boxes[:, 2:] > boxes[:, :2]).all():
            raise MediaError(f'clip "{clip_id}": given landmarks: all points of a face are one')
    if points is None:
        points = _measure(frames, boxes, valid, landmarks)
    return Sight(frames, boxes, points, valid, np.full(T, np.nan, np.float32))


def _check_near(places: np.ndarray, frames: np.ndarray, where: str) -> None:
    """Raises MediaError for a place further from the picture than the picture is large: another picture's pixels are meant,
    and a crop of such a box would take any amount of memory."""
    size = np.array(frames.shape[2:0:-1], np.float32)  # W, H
    points = places.reshape(-1, 2)
    far = (points < -size) | (points > 2 * size)
    if far.any():
        x, y = points[int(np.argmax(far.any(axis=1)))]
        raise MediaError(f"{where}: {x:g}, {y:g} lies far outside its pictures of {size[0]:g} x {size[1]:g}")


def _measure(
    frames: np.ndarray,
    boxes: np.ndarray,
    valid: np.ndarray,
    landmarks: Landmarks68 | None,
    known: Sequence[np.ndarray | None] | None = None,
) -> np.ndarray:
    """(T, 68, 2) float32: predicted in valid frames where they are not known, smoothed over them, interpolated elsewhere."""
    assert landmarks is not None
    points = np.zeros((len(frames), POINTS, 2), np.float32)
    for t in np.flatnonzero(valid).tolist():
        given = known[t] if known else None
        points[t] = landmarks.predict(frames[t], boxes[t]) if given is None else given
    return smooth_valid(points, valid, LANDMARK_SIGMA_FRAMES)
