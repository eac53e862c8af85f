"""Which steps of one modality answered which steps of the other: the weights of the BRFF's attention, as the model computed them.

*Source:* beta of Sec. 3.2, eq. 1-2. Of several blocks and heads, the mean over both is given: every block attends to the same auxiliary
features, so each row is still a distribution over their valid steps. Weights say where a step looked, not how much it took from
there: that is `added`, how large what the attention added is beside what was there (a BRFF begins at zero, and may stay close to it).

Shape legend: b clips, t1 steps that ask (basic), t2 steps that answer (auxiliary), h heads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .models.base import MODALITIES, FusionModel
from .models.blocks import Attention
from .models.brff import BilinearBRFF, CrossBRFF


@dataclass
class Looked:
    """One direction of one batch.

    Attributes:
        blocks: (b, t1, t2) of each block, the mean over its heads; rows sum to one over the valid steps, or are zero where there are none.
        added: (b, t1): the length of what was added over that of the step itself.
    """

    blocks: list[Tensor] = field(default_factory=list)
    added: Tensor | None = None

    @property
    def weights(self) -> Tensor:
        """(b, t1, t2)."""
        return torch.stack(self.blocks).mean(0)


@contextmanager
def looking(model: FusionModel) -> Iterator[dict[str, Looked]]:
    """While it is open, each call of the model leaves here what its BRFFs looked at, by the modality that asks; {} for models without."""
    seen: dict[str, Looked] = {}
    handles: list[Any] = []
    for asking in MODALITIES:
        brff = getattr(model, f"{asking}_brff", None)
        if isinstance(brff, CrossBRFF | BilinearBRFF):
            handles += watch(brff, seen, asking)
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def watch(brff: CrossBRFF | BilinearBRFF, seen: dict[str, Looked], asking: str) -> list[Any]:
    """Hooks that note what goes into the attention, and what the whole BRFF adds."""

    def begin(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[asking] = Looked()
        if isinstance(brff, BilinearBRFF):
            basic, auxiliary, mask = given
            seen[asking].blocks.append(shares(brff.weight(basic) @ auxiliary.transpose(1, 2), mask))

    def block(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Attention)
        seen[asking].blocks.append(cross_weights(module, *given))

    def end(module: nn.Module, given: tuple[Tensor, ...], fused: Tensor) -> None:
        basic = given[0]
        seen[asking].added = (fused - basic).norm(dim=-1) / basic.norm(dim=-1).clamp(min=1e-12)

    handles: list[Any] = [brff.register_forward_pre_hook(begin), brff.register_forward_hook(end)]
    inner = [part for part in brff.modules() if isinstance(part, Attention)]  # none of a bilinear one
    return handles + [attention.register_forward_pre_hook(block) for attention in inner]


def cross_weights(attention: Attention, basic: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """(b, t1, d), (b, t2, d), (b, t2) -> (b, t1, t2): the mean over heads of what `Attention.forward` weighs with."""
    b, t1, d = basic.shape
    query = attention.query(basic).view(b, t1, attention.heads, -1).transpose(1, 2)  # (b, h, t1, d / h)
    key = attention.key_value(other)[..., :d].view(b, other.shape[1], attention.heads, -1).transpose(1, 2)
    logits = query @ key.transpose(2, 3) / (d // attention.heads) ** 0.5
    return shares(logits, mask[:, None]).mean(1)


def shares(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the valid steps: (…, t1, t2), (…, t2) -> (…, t1, t2), zero where none is."""
    some = mask.any(-1)[..., None, None]
    masked = logits.masked_fill(~(mask[..., None, :] | ~some), -torch.inf)
    return masked.softmax(-1).masked_fill(~some, 0.0)
