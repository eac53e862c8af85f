"""Seconds by stage, and how much of its time a device was at work."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

DEVICE_STAGES = ("detect", "encode: ")  # how the names of stages that run on the device begin
# Of a fed device's process: all that is neither work nor waiting for feeders, such as giving results on.
HAND_OVER = "wait: hand over"


@dataclass
class Times:
    """Seconds of work by stage; "wait: …" is time in which the device had nothing to do."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began)

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def join(self, other: "Times") -> None:
        for stage, seconds in other.seconds.items():
            self.add(stage, seconds)


def time_of_device(seconds: Mapping[str, float]) -> float:
    """Seconds that a device's process spent, by stage: work on the device and waiting; not the work of its feeders."""
    return sum(s for stage, s in seconds.items() if stage.startswith((*DEVICE_STAGES, "wait")))


def busy_share(seconds: Mapping[str, float]) -> float | None:
    """How much of the time of the devices' processes was work on the device; None where nobody fed any."""
    if not any(stage.startswith("wait") for stage in seconds):
        return None
    return sum(s for stage, s in seconds.items() if stage.startswith(DEVICE_STAGES)) / time_of_device(seconds)
