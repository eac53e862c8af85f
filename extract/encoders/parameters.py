"""The encoders' own parameters: a frozen dataclass a family, with defaults. Importing it loads no library.

Each is a field of the stream specification as soon as it shapes a number, and may be given on the command line:
`--parameter mouth.roi.crop_px=96`.
"""

import re
from dataclasses import dataclass, replace

from ...store.errors import UsageError
from ..faces.policy import FaceCrop, MouthCrop, check_choice

PRECISIONS = ("fp32", "bf16", "fp16")
OUTPUTS = ("cls", "pooled")
SCALES = ("mel", "linear")
LAYERS = re.compile(r"last|all|-?\d+(,\d+)*")

LEAST_FACENET_PX = 80  # the network's strides leave nothing of less
LEAST_VGG_PX = 32  # five halvings


@dataclass(frozen=True)
class LogspecOptions:
    """The resolution.

    Attributes:
        scale: "mel" or "linear".
        bands: of the mel scale; the linear scale has 257 bins whatever this says.
        floor: least power before the logarithm: about the noise that 16-bit quantisation leaves in a band.
    """

    scale: str = "mel"
    bands: int = 80
    floor: float = 1e-10

    def __post_init__(self) -> None:
        check_choice("scale", self.scale, SCALES)
        if not 1 <= self.bands <= 160:  # of 200, some would fall between two bins and be empty
            raise UsageError(f"{self.bands} bands, expected 1 to 160")
        if not 0 < self.floor < 1:
            raise UsageError(f"floor {self.floor}, expected a power between 0 and 1")


@dataclass(frozen=True)
class SpeechOptions:
    """A transformer over sound.

    Attributes:
        layer: which hidden state is kept: a number from 0 to the number of layers, "last", several as "6,9,12", or "all".
            One gives (L,) a step; several or all give (number of layers, L), for a learnt weighting.
        precision: "fp32", or "bf16" / "fp16" by autocast.
    """

    layer: int | str = "last"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if not LAYERS.fullmatch(str(self.layer)):
            raise UsageError(f'layer "{self.layer}": expected a number, several such as 6,9,12, "last" or "all"')
        check_choice("precision", self.precision, PRECISIONS)

    @property
    def several(self) -> bool:
        return self.layer == "all" or "," in str(self.layer)

    def layers(self, last: int) -> list[int]:
        """The numbers meant, in rising order, of a model whose last layer has the number `last`.

        Raises:
            UsageError: for one that the model has not, or one named twice.
        """
        if self.layer in ("all", "last"):
            return list(range(last + 1)) if self.layer == "all" else [last]
        wanted = sorted(int(word) for word in str(self.layer).split(","))
        for k in wanted:
            if not 0 <= k <= last:
                raise UsageError(f"there is no layer {k}; expected 0 to {last}")
        if len(set(wanted)) < len(wanted):
            raise UsageError(f'layer "{self.layer}" names one twice')
        return wanted


@dataclass(frozen=True)
class FaceCropOptions:
    """How the face is cut out: see `FaceCrop`; crop_px is the side of the square."""

    crop_px: int = 128
    margin: float = 0.05
    colour: str = "rgb"
    align: str = "box"
    sigma_frames: float = 2.0

    def __post_init__(self) -> None:
        self.crop()

    def crop(self) -> FaceCrop:
        return FaceCrop(self.crop_px, self.margin, self.sigma_frames, self.align, self.colour)


@dataclass(frozen=True)
class MouthCropOptions:
    """How the mouth is cut out: see `MouthCrop`; crop_px is the side of the square."""

    crop_px: int = 80
    width: float = 1.5
    align: str = "similarity"
    sigma_frames: float = 2.0

    def __post_init__(self) -> None:
        self.crop()

    def crop(self) -> MouthCrop:
        return MouthCrop(self.crop_px, self.width, self.sigma_frames, self.align)


@dataclass(frozen=True)
class AvHubertSightOptions(MouthCropOptions, SpeechOptions):
    """AV-HuBERT over the mouth: see both. Its crops are those of the public code: 88 of 256 pixels of the mean face of LRW, whose
    eyes are 54.3 pixels apart."""

    crop_px: int = 88
    width: float = 1.62

    def __post_init__(self) -> None:
        MouthCropOptions.__post_init__(self)
        SpeechOptions.__post_init__(self)


@dataclass(frozen=True)
class MouthRoiOptions(MouthCropOptions):
    """colour: "grey" as in the paper, or "rgb"."""

    colour: str = "grey"

    def crop(self) -> MouthCrop:
        return replace(super().crop(), colour=self.colour)


@dataclass(frozen=True)
class MouthDctOptions(MouthCropOptions):
    """coefficients: how many a frame, the constant not counted. Of the grey picture."""

    coefficients: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.coefficients < self.crop_px**2:
            raise UsageError(
                f"{self.coefficients} coefficients of a {self.crop_px} px crop; expected 1 to crop_px^2 - 1"
            )


@dataclass(frozen=True)
class FaceNetOptions(FaceCropOptions):
    """InceptionResnetV1.

    Attributes:
        input_px: side of what the network is given; it was trained with 160.
        precision: "fp32", or "bf16" / "fp16" by autocast.
    """

    input_px: int = 160
    precision: str = "fp32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("precision", self.precision, PRECISIONS)
        if self.input_px < LEAST_FACENET_PX:
            raise UsageError(f"input {self.input_px} px; expected at least {LEAST_FACENET_PX}")


@dataclass(frozen=True)
class Vgg16Options(FaceCropOptions):
    """VGG-16, which is given the crop as it is, 128 px in the paper. precision: as in `FaceNetOptions`."""

    precision: str = "fp32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("precision", self.precision, PRECISIONS)
        if self.crop_px < LEAST_VGG_PX:
            raise UsageError(f"crop_px {self.crop_px}; expected at least {LEAST_VGG_PX}")


@dataclass(frozen=True)
class FaceImageOptions(FaceCropOptions):
    """A Hugging Face image encoder over the face.

    Attributes:
        crop_px: of the cut; the model's own image processor brings it to the model's size, and may cut off its border.
        output: "cls": the CLS token of the last hidden state; "pooled": the model's pooled output.
        precision: as in `FaceNetOptions`.
    """

    crop_px: int = 224
    output: str = "cls"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("output", self.output, OUTPUTS)
        check_choice("precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class MouthImageOptions(MouthRoiOptions):
    """A Hugging Face image encoder over the mouth: see `FaceImageOptions`."""

    crop_px: int = 224
    colour: str = "rgb"
    output: str = "cls"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("output", self.output, OUTPUTS)
        check_choice("precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class DlibFaceOptions:
    """every: which frames are described: 0, every, 2 every, …"""

    every: int = 5

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"every {self.every} frames, expected 1 or more")
