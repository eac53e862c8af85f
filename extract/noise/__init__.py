"""Noise variants of streams: the same clips heard through noise or seen through bad pictures, for tests of robustness."""

from .base import Context
from .table import TABLE, Variant, apply, parse

__all__ = ["TABLE", "Context", "Variant", "apply", "parse"]
