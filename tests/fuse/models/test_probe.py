import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import FusionModel, Input, Steps
from bmla.fuse.models.table import build

INPUTS = {"audio": Input(12, 50.0, (3, 4)), "visual": Input(5, 25.0)}


def model(name: str = "probe", **options: object) -> FusionModel:
    torch.manual_seed(0)
    made = build(RunConfig(name, probe_width=6, **options), INPUTS, 3).eval()
    torch.nn.init.normal_(made.get_submodule("audio").weight)
    return made


def pair() -> tuple[Steps, Steps]:
    generator = torch.Generator().manual_seed(1)
    audio = Steps(torch.randn(1, 6, 3, 4, generator=generator), torch.tensor([[1, 0, 1, 1, 1, 0]], dtype=torch.bool))
    return audio, Steps(torch.randn(1, 3, 5, generator=generator), torch.ones(1, 3, dtype=torch.bool))


def test_layers_are_weighed_projected_averaged_and_read() -> None:
    probe = model()
    audio, visual = pair()
    share = probe.audio.weight.exp() / probe.audio.weight.exp().sum()
    means = torch.zeros(6)
    for t in (0, 2, 3, 4):
        mixed = sum(share[k] * audio.values[0, t, k] for k in range(3))
        means = means + (probe.audio.project.weight @ mixed + probe.audio.project.bias) / 4
    sight = probe.visual.project(visual.values).mean(1)[0]
    out = probe(audio, visual)
    torch.testing.assert_close(
        out.result[0], (probe.head.weight @ torch.cat([means, sight]) + probe.head.bias).log_softmax(0)
    )
    torch.testing.assert_close(out.pooled_audio[0], means)


def test_the_mean_of_all_steps_counts_those_before_the_last_valid_one() -> None:
    valid, every = model("probe-ao"), model("probe-ao", probe_mean="all")
    audio, _ = pair()
    bias = every.audio.project.bias
    expected = (4 * valid(audio, None).pooled_audio + bias) / 5
    torch.testing.assert_close(every(audio, None).pooled_audio, expected)


def test_the_papers_width_is_the_default_and_one_layer_needs_no_weight() -> None:
    probe = build(RunConfig("probe"), INPUTS, 3)
    assert probe.audio.project.out_features == probe.visual.project.out_features == 256
    assert probe.visual.weight is None
    torch.testing.assert_close(probe.audio.weight.softmax(0), torch.full((3,), 1 / 3))
