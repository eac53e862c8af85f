"""One open media file: its streams, its time zero and its decoded frames, one thread a file, every failure one clear line.

Time zero is the file's own start: the earliest start of its video and audio streams, so that sound and picture stay in
sync however the container numbers its timestamps. All times are seconds of presentation time (PTS) from there; nothing
is ever computed from a frame number and a rounded frame rate.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import av
from av.error import FFmpegError
from av.stream import Disposition

from ..store.errors import MediaError
from .encoders.base import FRAME_RATE_HZ

SEEK_FROM_S = 10.0  # decoding that much costs less than an index that may be wrong; later cuts seek
SEEK_BACK_S = 2.0  # MPEG streams seek to any packet, not to a keyframe: most have one within this
OPTIONS = {"protocol_whitelist": "file"}  # a playlist in disguise reaches nothing outside this machine
COVER = Disposition.attached_pic
STUB = b"version https://git-lfs"


class MediaFile:
    """An open media file; use it in a `with`.

    Attributes:
        video, audio: the first stream of each kind, or None. A cover picture is no video.
        zero_s: the PTS of time zero in the container's own count.
        unreadable: how many packets could not be decoded so far; they show as holes.
    """

    def __init__(self, path: Path):
        """Raises MediaError where the file is missing, empty, a git-lfs stub or no media file."""
        self.path = path
        self.name = path.name
        self.unreadable = 0
        _check_bytes(path)
        self._open()

    def _open(self) -> None:
        try:
            # absolute: "concat:x.mp4" as a relative name would be taken for a protocol
            self._container = av.open(str(self.path.absolute()), options=OPTIONS)
        except (FFmpegError, OSError) as error:
            raise MediaError(
                f"{self.name}: no media can be read from it ({_reason(error)}): truncated, or no media file"
            ) from error
        streams = self._container.streams
        # Without a decoder for it a stream has no codec context: as good as absent.
        self.video = next((s for s in streams.video if s.codec_context and not s.disposition & COVER), None)
        self.audio = next((s for s in streams.audio if s.codec_context), None)
        for stream in self._streams().values():
            stream.codec_context.thread_type = "NONE"
            stream.codec_context.thread_count = 1
        starts = [float(s.start_time * s.time_base) for s in self._streams().values() if s.start_time is not None]
        self.zero_s = min(starts, default=0.0)

    def __enter__(self) -> "MediaFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def decode(self, kind: str, from_s: float) -> Iterator[tuple[float, Any]]:
        """(time_s, frame) in the order of presentation, from at or before `from_s` (or the stream's first frame) to the end.

        Args:
            kind: "video" or "audio"; the stream must be there.
        """
        if from_s > SEEK_FROM_S and self._seek(kind, from_s - SEEK_BACK_S):
            frames = self._frames(kind, after_seek=True)
            first = next(frames, None)
            if first is not None and first[0] <= from_s:
                yield first
                yield from frames
                return
            self._container.close()  # the index led past the cut: from the start, slowly but surely
            self._open()
        yield from self._frames(kind)

    def frame_period_s(self) -> float:
        """The nominal length of a video frame."""
        assert self.video is not None
        rate = self.video.average_rate or self.video.guessed_rate or FRAME_RATE_HZ
        return float(1 / rate)

    def ends_s(self) -> dict[str, float]:
        """Where each stream, "video" and "audio", ends by its own timestamps. Reads all packets from where the file stands."""
        streams = self._streams()
        kinds = {s.index: kind for kind, s in streams.items()}
        last: dict[str, int] = {}  # in the stream's own count: fractions are slow, and a file has many packets
        for packet in self._packets(*streams.values()):
            if packet.pts is not None:
                kind, over = kinds[packet.stream_index], packet.pts + (packet.duration or 0)
                last[kind] = max(last.get(kind, over), over)
        ends = dict.fromkeys(streams, self.zero_s)
        for kind, over in last.items():
            ends[kind] = max(ends[kind], float(over * streams[kind].time_base))
        for kind, stream in streams.items():
            # A header that promises more than there is counts: the clip of a truncated file fails, it does not shrink.
            if stream.duration is not None and stream.start_time is not None:
                ends[kind] = max(ends[kind], float((stream.start_time + stream.duration) * stream.time_base))
        return {kind: end_s - self.zero_s for kind, end_s in ends.items()}

    def trouble(self) -> str:
        """What to add to an error about missing content."""
        return f"; {self.unreadable} packets of the file could not be decoded" if self.unreadable else ""

    def _streams(self) -> dict[str, Any]:
        return {kind: s for kind, s in (("video", self.video), ("audio", self.audio)) if s is not None}

    def _seek(self, kind: str, time_s: float) -> bool:
        stream = self._streams()[kind]
        try:
            self._container.seek(int((time_s + self.zero_s) / stream.time_base), stream=stream, backward=True)
        except FFmpegError:  # no index, or not seekable: the caller decodes from where the file stands, its start
            return False
        return True

    def _frames(self, kind: str, after_seek: bool = False) -> Iterator[tuple[float, Any]]:
        stream = self._streams()[kind]
        started = not after_seek
        next_s = 0.0  # where a frame without a timestamp goes: after the one before it
        for packet in self._packets(stream):
            started = started or packet.is_keyframe
            if not started:  # some decoders would show a picture without the one that it builds upon
                continue
            if packet.is_corrupt:  # cut off by the end of the file: its picture would be half grey
                self.unreadable += 1
                continue
            try:
                frames = packet.decode()
            except FFmpegError:
                self.unreadable += 1
                continue
            frame: Any
            for frame in frames:
                time_s = next_s if frame.time is None else frame.time - self.zero_s
                next_s = time_s + (frame.samples / frame.sample_rate if kind == "audio" else self.frame_period_s())
                yield time_s, frame

    def _packets(self, *streams: Any) -> Iterator[av.Packet]:
        packets = self._container.demux(*streams)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except FFmpegError:  # the container breaks off here: what lies beyond is missing
                self.unreadable += 1
                return


def _check_bytes(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(STUB))
    except OSError as error:
        raise MediaError(f"{path.name}: the file cannot be read ({_reason(error)})") from error
    if not head:
        raise MediaError(f"{path.name}: the file is empty")
    if head == STUB:
        raise MediaError(f"{path.name}: a git-lfs stub, not the media itself; fetch it with: git lfs pull")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
