"""What a script of the field does with a clip, with the field's own tools: what bmla is compared with in `extract.py`.

OpenCV decodes, batch-face's RetinaFace detects frame by frame, dlib gives landmarks frame by frame, transformers' HuBERT and
facenet-pytorch's InceptionResnetV1 encode clip by clip, and each stream of each clip is saved by numpy. Networks, weights,
crops and streams are bmla's; nothing of bmla computes. Written to be quick where that costs no more than a line: no gradients, no
landmark or crop twice, all faces of a clip in one batch, a file of several clips decoded once.

`agreement` shows that it is the same work: how far its streams are from bmla's. They are not equal: decoders and resamplers
round otherwise, dlib is given RetinaFace's box as it is, and places are smoothed by a moving mean.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import dlib
import numpy as np
import torch
from facenet_pytorch import fixed_image_standardization
from scipy.fft import dctn
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from bmla.extract.encoders.facenet import random_face_network
from bmla.extract.encoders.speech import random_speech_model
from bmla.extract.weights import DLIB_LANDMARKS, face_recognition_model
from bmla.store.clips import Clip

RATE_HZ, FPS = 16_000, 25
FACE_PX, MOUTH_PX, NET_PX = 128, 80, 160
FACE_SIDE, MOUTH_SIDE = 1.1, 1.5  # of the box's longer side, of the distance between the eyes: bmla's defaults
SMOOTH = 5  # frames
COEFFICIENTS = 64

# Of a stream and bmla's the correlation of all numbers is at least this. A crop shifted by a pixel or two is another crop grey
# level by grey level; so of crops the shift is measured too.
LEAST = {"audio.logspec": 0.95, "audio.hubert": 0.95, "mouth.roi": 0.6, "mouth.dct": 0.8, "face.vggface2": 0.9}
MOST_SHIFT_PX = 3.0


class Script:
    """The loaded models.

    Args:
        detector: batch-face's.
    """

    def __init__(self, detector: Any, streams: Sequence[str]):
        self.detector, self.streams = detector, streams
        self.landmarks = dlib.shape_predictor(str(face_recognition_model(DLIB_LANDMARKS)))
        self.filters = mel_filter_bank(257, 80, 0, RATE_HZ / 2, RATE_HZ, norm="slaney", mel_scale="slaney")
        self.hann = window_function(400, "hann")
        if "audio.hubert" in streams:
            hub = random_speech_model("hubert-base")
            self.hubert, self.processor = hub.model.eval(), hub.processor
        if "face.vggface2" in streams:
            self.facenet = random_face_network().model.eval()

    def run(self, clips: Iterable[Clip], root: Path, out: Path) -> None:
        """Saves OUT/CLIP/STREAM.npy."""
        for clip in clips:
            folder = out / clip.id.replace("/", "_")
            folder.mkdir(parents=True, exist_ok=True)
            for stream, values in self.features(clip, root).items():
                np.save(folder / f"{stream}.npy", values)

    @torch.no_grad()
    def features(self, clip: Clip, root: Path) -> dict[str, np.ndarray]:
        found = self.heard(sound_of(root / str(clip.audio), *clip.sound_cut))
        first, count = int(clip.start_s * FPS + 0.5), max(1, round(clip.duration_s * FPS))
        return found | self.seen(pictures_of(root / str(clip.video))[first : first + count])

    def heard(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        options = {"frame_length": 400, "hop_length": 160, "fft_length": 512, "power": 2.0, "center": False}
        log = spectrogram(samples, self.hann, mel_filters=self.filters, log_mel="log", mel_floor=1e-10, **options).T
        first = slope(log)
        found = {"audio.logspec": np.concatenate([log, first, slope(first)], axis=1).astype(np.float16)}
        if "audio.hubert" in self.streams:
            inputs = self.processor(samples, sampling_rate=RATE_HZ, return_tensors="pt").input_values
            found["audio.hubert"] = self.hubert(inputs).last_hidden_state[0].numpy().astype(np.float16)
        return found

    def seen(self, frames: list[np.ndarray]) -> dict[str, np.ndarray]:
        """frames: BGR, as OpenCV gives them."""
        boxes, points = [], []
        for frame in frames:
            faces = self.detector.detect(frame, threshold=0.9)  # takes BGR
            if faces:
                box = max((face[0] for face in faces), key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
            elif boxes:
                box = boxes[-1]
            else:
                raise SystemExit("no face in the first frame: this script is for pictures that have one")
            shape = self.landmarks(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dlib.rectangle(*(round(v) for v in box)))
            boxes.append(box)
            points.append([(p.x, p.y) for p in shape.parts()])
        found: dict[str, np.ndarray] = {}
        mouths = mouths_of(frames, np.array(points, float))
        found["mouth.roi"] = mouths
        low = dctn(mouths / 255.0, axes=(1, 2), norm="ortho")[(slice(None), *zigzag())]
        found["mouth.dct"] = np.concatenate([low, slope(low)], axis=1).astype(np.float16)
        if "face.vggface2" in self.streams:
            batch = torch.from_numpy(faces_of(frames, np.array(boxes, float))).permute(0, 3, 1, 2).float()
            found["face.vggface2"] = self.facenet(fixed_image_standardization(batch)).numpy().astype(np.float16)
        return found


@lru_cache(maxsize=1)
def pictures_of(path: Path) -> list[np.ndarray]:
    """All frames of a file."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = capture.read()
        if not there:
            break
        frames.append(frame)
    capture.release()
    return frames


def sound_of(path: Path, start_s: float, end_s: float) -> np.ndarray:
    return all_sound_of(path)[round(start_s * RATE_HZ) :][: round((end_s - start_s) * RATE_HZ)]


@lru_cache(maxsize=1)
def all_sound_of(path: Path) -> np.ndarray:
    """All sound of a file by FFmpeg's resampler: mono, 16 kHz."""
    resampler = av.AudioResampler("flt", "mono", RATE_HZ)
    with av.open(str(path)) as file:
        blocks = [b.to_ndarray()[0] for frame in file.decode(audio=0) for b in resampler.resample(frame)]
    return np.concatenate([*blocks, *(b.to_ndarray()[0] for b in resampler.resample(None))])


def mouths_of(frames: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """(T, 80, 80) grey, upright and to scale by the eyes."""
    eyes = moving_mean(points[:, 42:48].mean(axis=1) - points[:, 36:42].mean(axis=1))
    centres = moving_mean(points[:, 48:68].mean(axis=1))
    crops = []
    for frame, (dx, dy), centre in zip(frames, eyes, centres, strict=True):
        matrix = cv2.getRotationMatrix2D(
            tuple(centre), float(np.degrees(np.arctan2(dy, dx))), MOUTH_PX / (MOUTH_SIDE * float(np.hypot(dx, dy)))
        )
        matrix[:, 2] += MOUTH_PX / 2 - 0.5 - centre
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        crops.append(cv2.warpAffine(grey, matrix, (MOUTH_PX, MOUTH_PX), borderMode=cv2.BORDER_REPLICATE))
    return np.stack(crops)


def faces_of(frames: list[np.ndarray], boxes: np.ndarray) -> np.ndarray:
    """(T, 160, 160, 3) RGB: squares around the face of 128 pixels, in the size that the network takes."""
    boxes = moving_mean(boxes)
    crops = []
    for frame, (x0, y0, x1, y1) in zip(frames, boxes, strict=True):
        half = FACE_SIDE * max(x1 - x0, y1 - y0) / 2
        left, top, right, bottom = (
            round(v) for v in ((x0 + x1) / 2 - half, (y0 + y1) / 2 - half, (x0 + x1) / 2 + half, (y0 + y1) / 2 + half)
        )
        height, width = frame.shape[:2]
        out = max(0, -left, -top, right - width, bottom - height)
        if out:
            frame = cv2.copyMakeBorder(frame, out, out, out, out, cv2.BORDER_REPLICATE)
        face = cv2.resize(frame[top + out : bottom + out, left + out : right + out], (FACE_PX, FACE_PX))
        crops.append(cv2.cvtColor(cv2.resize(face, (NET_PX, NET_PX)), cv2.COLOR_BGR2RGB))
    return np.stack(crops)


def moving_mean(values: np.ndarray) -> np.ndarray:
    """Along time, over those of the SMOOTH frames around each that there are."""
    return np.stack([values[max(0, t - SMOOTH // 2) : t + SMOOTH // 2 + 1].mean(axis=0) for t in range(len(values))])


def slope(values: np.ndarray) -> np.ndarray:
    """Along time, by regression over five steps."""
    padded = np.pad(values, ((2, 2), (0, 0)), mode="edge")
    return (padded[3:-1] - padded[1:-3] + 2 * (padded[4:] - padded[:-4])) / 10


def zigzag() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the lowest coefficients in JPEG's order, without the constant."""
    places = sorted(
        ((r, c) for r in range(MOUTH_PX) for c in range(MOUTH_PX)),
        key=lambda rc: (sum(rc), rc[0] if sum(rc) % 2 else rc[1]),
    )
    rows, columns = zip(*places[1 : COEFFICIENTS + 1], strict=True)
    return np.array(rows), np.array(columns)


def agreement(found: Sequence[dict[str, np.ndarray]], bmla: Sequence[dict[str, np.ndarray]]) -> list[str]:
    """One line a stream, over the same clips. Ends the program where shapes or dtypes differ, or numbers by more than LEAST allows."""
    lines = []
    for stream in bmla[0]:
        likeness = []
        for ours, theirs in zip((b[stream] for b in bmla), (f[stream] for f in found), strict=True):
            if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
                raise SystemExit(
                    f"{stream}: {theirs.dtype} of {theirs.shape} by the field's tools, {ours.dtype} of {ours.shape} by bmla"
                )
            likeness.append(np.corrcoef(ours.ravel().astype(float), theirs.ravel().astype(float))[0, 1])
        if min(likeness) < LEAST[stream]:
            raise SystemExit(f"{stream}: correlates with bmla's by {min(likeness):.3f} alone: not the same work")
        line = f"{stream:<16}correlation with bmla's: median {np.median(likeness):.4f}, least {min(likeness):.4f}"
        if bmla[0][stream].dtype == np.uint8:
            shifts = [
                shift_px(ours, theirs)
                for b, f in zip(bmla, found, strict=True)
                for ours, theirs in zip(b[stream], f[stream], strict=True)
            ]
            line += f"; shifted by {np.median(shifts):.2f} px, at most {max(shifts):.2f}"
            if max(shifts) > MOST_SHIFT_PX:
                raise SystemExit(f"{line}: not the same work")
        lines.append(line)
    return lines


def shift_px(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Between two grey crops, by the phase of their spectra."""
    window = cv2.createHanningWindow(ours.shape[::-1], cv2.CV_32F)
    return float(np.hypot(*cv2.phaseCorrelate(ours.astype(np.float32), theirs.astype(np.float32), window)[0]))
