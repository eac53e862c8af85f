"""The one configuration that stands for all that train the same weights.

A setting that a model never looks at is put back to its default, so that one run serves every request for it.
"""

from dataclasses import replace

from .balance.table import entry as balance_entry
from .checks import SPECIFIC
from .config import RunConfig
from .models.table import BOTH
from .models.table import entry as model_entry
from .ratio import parse_ratio

TEACHERS = {"audio": "transformer-ao", "visual": "transformer-vo"}  # of models that start from no branches


def canonical(config: RunConfig) -> RunConfig:
    """The configuration with every field that its model never looks at set to the default.

    Two requests for the same training thereby are equal, so that one run serves both.
    """
    default = RunConfig(config.model)
    entry = model_entry(config.model)
    read = {*entry.reads, *balance_entry(config.balance).reads}
    if balance_entry(config.balance).teachers and not entry.starts:
        read |= {*model_entry(TEACHERS["audio"]).reads}
    unread = SPECIFIC - read
    # First these, so that what follows asks only settings that the model has: no part of BalanceMLA is missing from another model.
    config = replace(config, **{name: getattr(default, name) for name in unread})
    if not config.brff:
        unread |= {"attention"}
    if not config.brff or config.attention == "bilinear":
        unread |= {"brff_layers"}
    if not config.adf and not config.clw:
        unread |= {"gate_input"}
    if "gate_input" in unread or config.gate_input != "reliability":
        unread |= {"gate_augment"}
    if config.head == "linear":
        unread |= {"cosine_scale"}
    if config.pretrain_epochs == 0:
        unread |= {"pretrain_lr"}
    if config.epochs == 0:
        unread |= {"lr"}
    if config.finetune_epochs == 0:
        unread |= {"finetune_lr"}
    if config.folds == 0:
        unread |= {"fold", "fold_by"}
    if len(entry.takes) == 1:
        unread |= {"modality_dropout", *(n for m in BOTH if m not in entry.takes for n in (m, f"lr_scale_{m}"))}
    ratio = default.ratio if "ratio" in unread else str(parse_ratio(config.ratio))
    if ratio == "1:1":
        unread |= {"ratio_mode"}
    values = {name: getattr(default, name) for name in unread} | {"ratio": ratio}
    seen = [getattr(config, modality) for modality in entry.takes]
    for field in ("augment", "gate_augment"):
        names = values.get(field, getattr(config, field))
        values[field] = tuple(sorted({name for name in names if name.partition("@")[0] in seen}))
    if values["gate_augment"] == values["augment"]:
        values["gate_augment"] = ()
    if not values["augment"]:
        values["noise_share"] = default.noise_share
    return replace(config, **values)
