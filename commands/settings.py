"""The options of `bmla fuse` that are settings of a run, one for one: each has the name of a field of `RunConfig`.

An option that is not given is None here: the default is the recipe's.
"""

from collections.abc import Callable
from typing import Any

import click

SETTINGS = (
    click.option(
        "--ratio-mode",
        type=click.Choice(["fixed-total", "fixed-base"]),
        help="Keep the sum of both lengths, or the shorter one.  [default: fixed-total]",
    ),
    click.option(
        "--schedule",
        default="paper",
        show_default=True,
        type=click.Choice(["paper", "long"]),
        help="BalanceMLA after pre-training: 5 epochs of fine-tuning, or 25 of training before them.",
    ),
    click.option(
        "--recipe",
        default="default",
        show_default=True,
        type=click.Choice(["default", "paper", "paper-sec3"]),
        help="paper: BalanceMLA to the letter; paper-sec3: the 5e-7 of the paper's section 3 for the Transformers.",
    ),
    click.option("--layers", type=int, metavar="N", help="Of every Transformer encoder.  [default: 6]"),
    click.option(
        "--convolution",
        type=int,
        metavar="N",
        help="Steps of a convolution in each layer of the encoders, odd, as in a Conformer; 0: none.  "
        "[default: 7; 0 transformer, and with --recipe paper]",
    ),
    click.option("--heads", type=int, metavar="N", help="Attention heads.  [default: 8]"),
    click.option("--width", type=int, metavar="N", help="Features of one modality in the model.  [default: 256]"),
    click.option(
        "--epochs",
        type=int,
        metavar="N",
        help="Of training, pre-training included.  [default: 30 transformer, 25 others]",
    ),
    click.option("--finetune-epochs", type=int, metavar="N", help="Of fine-tuning, after training.  [default: 5]"),
    click.option(
        "--lr", type=float, metavar="X", help="Learning rate of training.  [default: 1e-4 transformer, 3e-4 others]"
    ),
    click.option("--finetune-lr", type=float, metavar="X", help="Learning rate of fine-tuning.  [default: 5e-5]"),
    click.option("--batch-size", type=int, metavar="N", help="Clips a step.  [default: 16 transformer, 32 others]"),
    click.option(
        "--dropout", type=float, metavar="X", help="On embeddings and on the outputs of every part.  [default: 0.1]"
    ),
    click.option(
        "--gru-units", type=int, metavar="N", help="Of each GRU layer and direction (concat, bgru).  [default: 1024]"
    ),
    click.option("--gru-layers", type=int, metavar="N", help="Of each GRU.  [default: 2]"),
    click.option(
        "--front-width", type=int, metavar="N", help="Kernels of a front end's 3-D convolution.  [default: 64]"
    ),
    click.option("--resnet-depth", type=int, metavar="N", help="Of the ResNet after it, 18 or 34.  [default: 34]"),
    click.option("--crop", type=float, metavar="X", help="Share of a picture's sides that is seen.  [default: 0.9]"),
    click.option(
        "--flip",
        type=float,
        metavar="X",
        help="Share of clips whose pictures are mirrored in training.  [default: 0.5]",
    ),
    click.option(
        "--time-mask",
        type=float,
        metavar="X",
        help="Longest share of a clip hidden in training.  [default: 0.4 with front ends, bgru; else 0]",
    ),
    click.option(
        "--mixup",
        type=float,
        metavar="ALPHA",
        help="Mix training clips.  [default: 0.4 with front ends, bgru; else 0]",
    ),
    click.option(
        "--noise-share",
        type=float,
        metavar="X",
        help="Trained with noise: the share of the clips whose sound has it, and as many whose sight, up to 0.5. 0: a third each, "
        "but half for a model of one modality.  [default: 1/3]",
    ),
    click.option("--probe-width", type=int, metavar="N", help="What the probe projects to.  [default: 256]"),
    click.option(
        "--probe-mean",
        type=click.Choice(["valid", "all"]),
        help="Steps that the probe averages: valid ones, or all up to the last valid one.  [default: valid]",
    ),
    click.option(
        "--head",
        type=click.Choice(["linear", "cosine"]),
        help="Of late fusion and of BalanceMLA's branches: linear, or by cosines, which bound how sure a branch can be.  "
        "[default: cosine balancemla, logit-average; else, and with --recipe paper, linear]",
    ),
    click.option(
        "--attention",
        type=click.Choice(["cross", "bilinear"]),
        help="Form of BRFF: cross-attention blocks, or equations 1-2 to the letter.  [default: cross]",
    ),
    click.option(
        "--gate-input",
        type=click.Choice(["reliability", "brff", "encoder"]),
        help="What alpha is computed from: how sure each branch is, fitted on held-out clips; or as in the paper, "
        "trained with the branches.  [default: reliability]",
    ),
    click.option(
        "--mix",
        type=click.Choice(["log-probabilities", "probabilities"]),
        help="What alpha mixes.  [default: log-probabilities]",
    ),
    click.option(
        "--lambda-audio", type=float, metavar="X", help="Weight of the audio branch's own loss.  [default: 1]"
    ),
    click.option(
        "--lambda-visual", type=float, metavar="X", help="Weight of the visual branch's own loss.  [default: 1]"
    ),
    click.option(
        "--lr-scale-audio", type=float, metavar="X", help="Factor on the audio parts' learning rate.  [default: 1]"
    ),
    click.option(
        "--lr-scale-visual", type=float, metavar="X", help="Factor on the visual parts' learning rate.  [default: 1]"
    ),
    click.option("--class-weights", is_flag=True, help="Weigh the loss by 1 / class frequency."),
    click.option(
        "--label-smoothing", type=float, metavar="X", help="Share of each target spread over all classes.  [default: 0]"
    ),
    click.option(
        "--warmup-steps",
        type=int,
        metavar="N",
        help="Steps over which the learning rate of each phase rises.  [default: 0]",
    ),
    click.option(
        "--patience",
        type=int,
        metavar="N",
        help="Epochs without a better one on dev that end a phase; 0: none do.  [default: 0]",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        help="Of the arithmetic; weights stay float32.  [default: fp32]",
    ),
    click.option(
        "--modality-dropout",
        type=float,
        metavar="X",
        help="Share of the training clips of which one modality is hidden.  [default: 0]",
    ),
)


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of them, in this order."""
    for option in reversed(SETTINGS):
        command = option(command)
    return command
