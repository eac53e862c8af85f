import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from bmla.fuse.config import RunConfig
from bmla.fuse.models.base import Input
from bmla.fuse.models.table import MODELS, build, entry
from bmla.store.errors import UnknownName

INPUTS = {"audio": Input(6, 50.0), "visual": Input(5, 25.0)}


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
    config = RunConfig(name, width=8, heads=2, layers=3, gru_units=3)
    model = build(config, {m: INPUTS[m] for m in entry(name).takes}, 4)
    assert {n.split(".")[0] for n, _ in model.named_children()} >= set(entry(name).takes)
    deeper = replace(config, layers=4, gru_layers=3)
    assert sum(p.numel() for p in build(deeper, INPUTS, 4).parameters()) > sum(p.numel() for p in model.parameters())


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
        model = build(RunConfig(name, width=8, heads=2, layers=1, gru_units=3), INPUTS, 4)
        for modality in entry(name).takes:
            length = INPUTS[modality].length
            model.set_statistics(modality, torch.full((length,), 3.0), torch.full((length,), 2.0))
        buffers = dict(model.named_buffers())
        assert len(buffers) == 2 * len(entry(name).takes)
        assert all((b == (3.0 if n.endswith("mean") else 2.0)).all() for n, b in buffers.items())
