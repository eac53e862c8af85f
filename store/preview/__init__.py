"""A store on one page: what was extracted, to be looked at by a person."""

from .page import render_page, write_page
from .survey import Survey, survey

__all__ = ["Survey", "render_page", "survey", "write_page"]
