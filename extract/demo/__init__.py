"""The demo's generated talking-face data set."""

from .generate import make_demo

__all__ = ["make_demo"]
