import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import Input
from bmla.fuse.models.kinds import VECTORS
from bmla.fuse.models.table import MODELS, build, common_kinds, entry
from bmla.store.errors import UnknownName, UsageError

INPUTS = {"audio": Input(6, 50.0), "visual": Input(5, 25.0)}
PICTURES = {"audio": Input(24, 100.0, (3, 8)), "visual": Input(64, 25.0, (8, 8), pixels=True)}
SMALL = dict(width=8, heads=2, layers=3, gru_units=3, front_width=2, resnet_depth=18, probe_width=3)


def inputs_of(name: str) -> dict[str, Input]:
    return INPUTS if VECTORS in entry(name).kinds else PICTURES


def test_an_unknown_model_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(
        UnknownName, match='unknown model "balance"; known: transformer-ao, transformer-vo, transformer, balance'
    ):
        entry("balance")


def test_the_table_imports_no_torch() -> None:
    imports = "import sys, bmla.fuse.models.table, bmla.fuse.config, bmla.fuse.recipes"
    imports = "import sys, bmla.fuse.models.table, bmla.fuse.config, bmla.fuse.recipes"
    code = f"{imports}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_is_built_from_its_modalities_alone(name: str) -> None:
    config, inputs = RunConfig(name, **SMALL), inputs_of(name)
    model = build(config, {m: inputs[m] for m in entry(name).takes}, 4)
    assert {n.split(".")[0] for n, _ in model.named_children()} >= set(entry(name).takes)
    deeper = replace(config, layers=4, gru_layers=3, resnet_depth=34, probe_width=4)
    assert sum(p.numel() for p in build(deeper, inputs, 4).parameters()) > sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if "layers" in entry.reads])
def test_the_default_sizes_are_the_papers(name: str) -> None:
    config = RunConfig(name)
    assert (config.layers, config.heads, config.dropout, config.brff_layers) == (6, 8, 0.1, 3)
    assert (config.gru_units, config.gru_layers) == (1024, 2)
    model = build(config, INPUTS, 4)
    encoder = model.encoder if name == "transformer" else model.get_submodule(entry(name).takes[0]).encoder
    assert len(encoder.layers) == 6
    assert encoder.layers[0].attention.heads == 8


def test_statistics_reach_the_standardisation_of_their_modality() -> None:
    for name in MODELS:
        inputs = inputs_of(name)
        model = build(RunConfig(name, **SMALL), inputs, 4)
        for modality in entry(name).takes:
            shape = (1,) if inputs[modality].pixels else inputs[modality].layout
            model.set_statistics(modality, torch.full(shape, 3.0), torch.full(shape, 2.0))
        buffers = {n: b for n, b in model.named_buffers() if ".standardise." in n}
        assert len(buffers) == 2 * len(entry(name).takes)
        assert all((b == (3.0 if n.endswith("mean") else 2.0)).all() for n, b in buffers.items())


def test_a_step_that_a_model_does_not_take_is_refused_in_one_line() -> None:
    with pytest.raises(
        UsageError, match=r"^probe-vo takes several vectors a step or one vector a step, but .* is 8 x 8 pixels$"
    ):
        build(RunConfig("probe-vo"), PICTURES, 4)
    with pytest.raises(UsageError, match=r"^stconv-vo takes a picture a step or several vectors a step, but .* is 5$"):
        build(RunConfig("stconv-vo"), INPUTS, 4)


def test_models_of_one_command_share_what_a_step_is() -> None:
    assert common_kinds(["transformer", "probe-vo"], "visual") == ("vectors", "stacks")
    assert common_kinds(["stconv-vo", "transformer-ao"], "visual") == ("pixels", "stacks")
    assert common_kinds(["stconv-vo", "transformer"], "visual") == ("pixels", "stacks")
    assert common_kinds(["bgru", "balancemla"], "visual") == ("vectors", "pixels", "stacks")
    assert common_kinds(["probe", "balancemla"], "audio") == ("vectors", "stacks")
    assert common_kinds(["probe"], "audio") == ("stacks", "vectors")


def test_some_kind_of_step_suits_any_models_together() -> None:
    for modality in ("audio", "visual"):
        assert common_kinds(list(MODELS), modality) == ("stacks",)
