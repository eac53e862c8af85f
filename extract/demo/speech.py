"""Words spoken by eSpeak NG through its shared library: text and voice in, samples and timed phonemes out.

*Source:* espeak-ng's speak_lib.h (structures and constants below are its own). The library is GPL-3; nothing of it is
part of bmla, which calls the copy that the package espeakng-loader brings.

eSpeak's output depends on what the same process has spoken before (noise generator, wave phase), so a list of words is
always spoken by one fresh process, in order: then it is the same every time.
"""

import ctypes
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from ...store.errors import BmlaError

SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: the callback gets the samples before espeak_Synth returns
PHONEME_EVENTS, DONT_EXIT = 0x1, 0x8000  # options of espeak_Initialize
LIST_TERMINATED, PHONEME = 0, 7  # espeak_EVENT_TYPE
RATE, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER
UTF8 = 1
NOISE_SEED = 1


@dataclass(frozen=True)
class Utterance:
    """What to say and how.

    Attributes:
        voice: an eSpeak voice with its variant, such as "gmw/en-US+f2".
        words_per_minute: 80 to 450.
        pitch, pitch_range: 0 to 99; 50 is the voice's own.
    """

    text: str
    voice: str
    words_per_minute: int = 150
    pitch: int = 50
    pitch_range: int = 50


@dataclass(frozen=True)
class Phone:
    """One phoneme in eSpeak's notation, without stress marks."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """samples: (n,) float32 in [-1, 1] at rate_hz; phones: in order, pauses left out."""

    samples: np.ndarray
    rate_hz: int
    phones: tuple[Phone, ...]


def speak(utterances: Sequence[Utterance]) -> list[Speech]:
    """Speaks a list in a process of its own: the same list gives the same samples.

    Raises:
        BmlaError: the packages of the demo are not installed, or eSpeak refuses a voice.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_speak_all, list(utterances)).result()


def _speak_all(utterances: list[Utterance]) -> list[Speech]:
    synthesiser = _Synthesiser()
    return [synthesiser.say(utterance) for utterance in utterances]


class _Name(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Synthesiser:
    """The loaded library. One a process: its state is global."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise BmlaError("eSpeak NG is not installed; install it with: pip install 'bmla[demo]'") from error
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self._rate_hz = self._library.espeak_Initialize(SYNCHRONOUS, 0, data, PHONEME_EVENTS | DONT_EXIT)
        if self._rate_hz <= 0:
            raise BmlaError(
                "eSpeak NG does not start: its data are missing, or their path is longer than its 160 characters; "
                "reinstall espeakng-loader"
            )
        self._callback = _Callback(self._receive)  # kept: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(NOISE_SEED))
        self._blocks: list[np.ndarray] = []
        self._marks: list[tuple[float, str]] = []

    def say(self, utterance: Utterance) -> Speech:
        self._blocks, self._marks = [], []
        library, text = self._library, utterance.text.encode()
        if library.espeak_SetVoiceByName(utterance.voice.encode()):
            raise BmlaError(f'eSpeak NG has no voice "{utterance.voice}"')
        library.espeak_SetParameter(RATE, utterance.words_per_minute, 0)
        library.espeak_SetParameter(PITCH, utterance.pitch, 0)
        library.espeak_SetParameter(RANGE, utterance.pitch_range, 0)
        failed = library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, UTF8, None, None)
        if failed or not self._blocks:
            raise BmlaError(f'eSpeak NG cannot say "{utterance.text}" (code {failed})')
        samples = np.concatenate(self._blocks).astype(np.float32) / 32_768
        ends = [start_s for start_s, _ in self._marks[1:]] + [len(samples) / self._rate_hz]
        phones = [Phone(name, start_s, end_s) for (start_s, name), end_s in zip(self._marks, ends, strict=True)]
        return Speech(samples, self._rate_hz, tuple(p for p in phones if not p.name.startswith("_")))

    def _receive(
        self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[_Event]"
    ) -> int:
        if count > 0 and samples:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != LIST_TERMINATED:
            if events[index].type == PHONEME:
                name = events[index].id.string.decode("utf-8", "replace").lstrip("',%=")
                self._marks.append((events[index].audio_position / 1000, name))
            index += 1
        return 0  # go on
