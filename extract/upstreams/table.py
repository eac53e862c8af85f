"""The table of published models: what a checkpoint of each must hold, and what it may hold besides. Loads no torch.

A checkpoint's keys are the names of the parameters of bmla's own module, behind one of some prefixes, so that the module
itself says which keys and shapes are expected.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

Settings = tuple[tuple[tuple[str, ...], Any], ...]


@dataclass(frozen=True)
class Upstream:
    """One published model.

    Attributes:
        family: of models that one encoder serves: "avhubert".
        build: the module of a config; heavy imports happen inside.
        config: values that differ from the config's defaults.
        prefixes: what may stand before every key, tried in this order.
        mark: the key that tells which prefix it is.
        unused: keys that belong to training alone: a pattern for what stands behind the prefix.
        expected: settings that the checkpoint must agree with, where it says them.
        inside: where the settings of this model lie within those of a fine-tuned one.
        aliases: other names under which a checkpoint repeats a part: {"multi_transformer.": "transformer."}.
        contradictions: what else the tensors say against this module's reading of them, a sentence each.
        source: where it is published.
    """

    family: str
    build: "Callable[[Mapping[str, Any]], nn.Module]"
    config: Mapping[str, Any]
    prefixes: tuple[str, ...]
    mark: str
    unused: re.Pattern[str]
    source: str
    expected: Settings = ()
    inside: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    contradictions: "Callable[[dict[str, Tensor]], list[str]] | None" = None


def _avhubert(config: Mapping[str, Any]) -> "nn.Module":
    from .avhubert import AvHubert, AvHubertConfig

    return AvHubert(AvHubertConfig(**config))


def avhubert(config: Mapping[str, Any], heads: int) -> Upstream:
    """AV-HuBERT of this size; heads are said apart, since no shape tells them."""
    return Upstream(
        family="avhubert",
        build=_avhubert,
        config={**config, "heads": heads},
        prefixes=("", "encoder.w2v_model.", "w2v_encoder.w2v_model."),
        mark="feature_extractor_video.resnet.frontend3D.0.weight",
        unused=re.compile(r"mask_emb|label_embs_concat|(final_proj|target_glu)\..*"),
        source="https://facebookresearch.github.io/av_hubert/",
        expected=(
            (("model", "encoder_attention_heads"), heads),
            (("model", "layer_norm_first"), True),
            (("model", "activation_fn"), "gelu"),
            (("model", "modality_fuse"), "concat"),
            (("model", "resnet_relu_type"), "prelu"),
            (("model", "sub_encoder_layers"), 0),
            (("task", "stack_order_audio"), 4),
            (("task", "normalize"), True),
            (("task", "image_mean"), 0.421),
            (("task", "image_std"), 0.165),
        ),
        inside=("model", "w2v_args"),
    )


def _avbert(config: Mapping[str, Any]) -> "nn.Module":
    from .avbert import AvBert, AvBertConfig

    return AvBert(AvBertConfig(**config))


def _avbert_contradictions(tensors: "dict[str, Tensor]") -> list[str]:
    from .avbert import contradictions

    return contradictions(tensors)


def avbert(config: Mapping[str, Any], layers: int, heads: int) -> Upstream:
    """AVBERT of this size; neither layers, which share one set of weights, nor heads are told by a shape."""
    copies = ("single_visual_transformer.", "single_audio_transformer.", "multi_transformer.")
    return Upstream(
        family="avbert",
        build=_avbert,
        config={**config, "layers": layers, "heads": heads},
        prefixes=("", "module."),
        mark="visual_conv.s1.pathway0_stem.conv.weight",
        unused=re.compile(r".*(head|_B).*"),
        source="https://github.com/roger-tseng/av-superb",
        expected=(
            (("TRANSFORMER", "NUM_HIDDEN_LAYERS"), layers),
            (("TRANSFORMER", "NUM_ATTENTION_HEADS"), heads),
            (("TRANSFORMER", "HIDDEN_ACT"), "gelu"),
            (("TRANSFORMER", "ORTHOGONAL_MODE"), "static"),
            (("TRANSFORMER", "USE_MEAN_POOLING"), False),
            (("MODEL", "FUSION"), "mid"),
        ),
        aliases=dict.fromkeys(copies, "transformer."),
        contradictions=_avbert_contradictions,
    )


def _mavil(config: Mapping[str, Any]) -> "nn.Module":
    from .mavil import Mavil, MavilConfig

    return Mavil(MavilConfig(**config))


def mavil(config: Mapping[str, Any], heads: int) -> Upstream:
    """MAViL with its blocks over both modalities: the checkpoint `mavil_as_pt_ft_a+v.pth`."""
    return Upstream(
        family="mavil",
        build=_mavil,
        config={**config, "heads": heads},
        prefixes=("", "module."),
        mark="patch_embed_v.proj.weight",
        unused=re.compile(r"(head_av|head_a|head_v|fc_norm_a|fc_norm_v)\..*"),
        source="https://github.com/roger-tseng/av-superb",
        expected=((("num_heads",), heads),),
    )


AVHUBERT_TINY = {"layers": 3, "width": 32, "inner": 64, "conv_pos": 16, "conv_pos_groups": 4, "trunk": (4, 8, 8, 16)}
AVBERT_TINY = {
    **{"width": 32, "inner": 48, "rank": 8, "visual_width": 4, "audio_width": 4, "blocks": (1, 1, 1, 1)},
    **{"views": 3, "frames": 4, "side": 32, "bands": 16, "columns": 16, "positions": 8},
}
MAVIL_TINY = {
    **{"layers": 2, "layers_av": 2, "width": 32, "patch": 8, "frames": 4, "side": 32, "columns": 32, "bands": 16},
}

UPSTREAMS: dict[str, Upstream] = {
    "avhubert-base": avhubert({}, heads=12),
    "avhubert-large": avhubert({"layers": 24, "width": 1024, "inner": 4096}, heads=16),
    "avbert": avbert({}, layers=6, heads=12),
    "mavil": mavil({}, heads=12),
}
RANDOM_MODELS: dict[str, Upstream] = {
    "avhubert-tiny": avhubert(AVHUBERT_TINY, heads=4),
    "avbert-tiny": avbert(AVBERT_TINY, layers=2, heads=4),
    "mavil-tiny": mavil(MAVIL_TINY, heads=4),
}
