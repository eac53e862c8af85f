"""No balancing: every modality learns as fast as it can."""

from collections.abc import Mapping

from ..config import RunConfig
from ..models.base import FusionModel
from .base import Balance


def build(config: RunConfig, model: FusionModel, classes: int, teachers: Mapping[str, FusionModel]) -> Balance:
    """See `table.build`."""
    return Balance(config)
