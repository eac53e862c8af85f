"""The paper's training settings by name, and how a user's wishes turn into run configurations.

*Source:* Sec. 4.1.2. BalanceMLA: 3e-4 for 25 epochs, then 5e-5 for 5 epochs of the composite, batches of 32. The Transformers of
Sec. 3: 5e-7, batches of 16. At that rate AdamW needs thousands of epochs, so it is a recipe of its own, and the default is 1e-4 for
30 epochs (ours). Schedule `long` (ours) trains the composite for 25 epochs before its 5 of fine-tuning.

For every other model the paper gives no numbers. Ours: both phases of BalanceMLA, so that it differs in the model alone; and for the
logit average BalanceMLA's pre-training with nothing after it, so that both share the runs of one modality. Front ends on pictures or
spectra are trained with the augmentations of Ma et al. (2022): crops of .9 (88 of 96 pixels), flips of half of the clips, mixup with
alpha .4; spans of up to .4 of a clip hidden (theirs are in seconds). So are `stconv` and `bgru` on anything.

Noise, where some is named (ours): sound is spoilt in a third of the clips and sight in another, also for a model that sees one of them.

Ours too, since they gain more than any way to fuse (`docs/research.md`): encoders of all models but the Transformers by name have a
convolution, and BalanceMLA's branches answer by cosines. The paper's have neither.
"""

from typing import Any

from ..store.errors import UnknownName
from .balance.table import entry as balance_entry
from .canonical import canonical
from .config import RunConfig
from .models.table import entry as model_entry

TRANSFORMER = {"epochs": 30, "lr": 1e-4, "finetune_epochs": 0, "batch_size": 16}
BRANCH = {"epochs": 25, "lr": 3e-4, "finetune_epochs": 0, "batch_size": 32}
COMPOSITE = {"pretrain_epochs": 25, "pretrain_lr": 3e-4, "finetune_epochs": 5, "finetune_lr": 5e-5, "batch_size": 32}
SCHEDULES: dict[str, dict[str, Any]] = {
    "paper": {**COMPOSITE, "epochs": 0},
    "long": {**COMPOSITE, "epochs": 25, "lr": 3e-4},
}
PHASES = {"epochs": 25, "lr": 3e-4, "finetune_epochs": 5, "finetune_lr": 5e-5, "batch_size": 32}
UNTRAINED_ANSWERS = {"lambda_audio": 0.0, "lambda_visual": 0.0}
AUGMENTED = {"crop": 0.9, "flip": 0.5, "time_mask": 0.4, "mixup": 0.4}
CONVOLVED = {**PHASES, **AUGMENTED}
MODELS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("stconv-ao", "stconv-vo", "stconv", "bgru-ao", "bgru-vo", "bgru"), CONVOLVED),
    "balancemla-ao": BRANCH,
    "balancemla-vo": BRANCH,
    "logit-average": {**COMPOSITE, "epochs": 0, "finetune_epochs": 0},
    "joint": {**PHASES, **UNTRAINED_ANSWERS},
    "gated": {**PHASES, **UNTRAINED_ANSWERS},
}
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {},
    "paper-sec3": {"lr": 5e-7},
}
LITERAL = {"gate_input": "brff"}  # recipe "paper": alpha from the BRFF's outputs, trained with the branches (Sec. 3.2)
CONVOLUTION, COSINES = {"convolution": 7}, {"head": "cosine"}  # not of recipe "paper"
NOISY = {"noise_share": 1 / 3}
COSINE = ("balancemla-ao", "balancemla-vo", "balancemla", "logit-average")


def run_config(
    model: str, *, schedule: str = "paper", recipe: str = "default", pictures: bool = False, **wishes: Any
) -> RunConfig:
    """The configuration of one run.

    Args:
        schedule: of BalanceMLA's composite.
        recipe: "paper": BalanceMLA to the letter, and no model with a convolution in its encoders or heads of cosines;
            "paper-sec3": the Transformers' learning rate.
        pictures: a stream of the sweep needs a front end; see `choice.needs_front`.
        wishes: fields of RunConfig that the user set; None: not set. `epochs` and `lr` also set the pre-training of the branches
            that a model starts from, and its own first phase where it has one; fine-tuning has fields of its own.

    Raises:
        UnknownName, UsageError: a wish that can't be.
    """
    for what, name, known in (("schedule", schedule, SCHEDULES), ("recipe", recipe, RECIPES)):
        if name not in known:
            raise UnknownName(what, name, tuple(known))
    if model == "balancemla":
        settings = SCHEDULES[schedule] | (LITERAL if recipe == "paper" else {})
    elif model.startswith("transformer"):
        settings = TRANSFORMER | RECIPES[recipe]
    else:
        settings = dict(MODELS.get(model, PHASES))
    if recipe != "paper" and "convolution" in model_entry(model).reads and not model.startswith("transformer"):
        settings = settings | CONVOLUTION
    if recipe != "paper" and model in COSINE:
        settings = settings | COSINES
    if pictures:
        settings = settings | AUGMENTED
    settings = {**NOISY, **settings, **balance_entry(wishes.get("balance") or "none").sets}
    wished = {name: value for name, value in wishes.items() if value is not None}
    if "pretrain_epochs" in settings:
        for name in ("epochs", "lr"):
            if name in wished:
                settings[f"pretrain_{name}"] = wished[name]
        if settings["epochs"] == 0:
            wished.pop("epochs", None)
        if settings["finetune_epochs"] == 0:
            wished.pop("finetune_epochs", None)
    return canonical(RunConfig.from_dict({"model": model, **settings, **wished}))
