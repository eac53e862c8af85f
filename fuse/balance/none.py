"""No method of its own: every modality learns as fast as the settings let it.

Also the file of those that are settings alone (see `sets` in the table), for which `base.Balance` does all there is to do:

    joint-aux         lambda 1 on the cross-entropy of each modality's own answer
    modality-dropout  one modality of some clips is hidden while the model trains
    mmcosine          a head of cosines, s (cos(W_a, z_a) + cos(W_v, z_v)), without norms by which one modality could outgrow the other
"""

from collections.abc import Mapping

from ..config import RunConfig
from ..models.base import FusionModel
from .base import Balance


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`."""
    return Balance(config)
