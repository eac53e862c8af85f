"""Runs on one page: its numbers (`page_numbers`), and the HTML around them (`render`)."""

from .content import page_numbers
from .render import Live, render_page
from .training import Training, trainings

__all__ = ["Live", "Training", "page_numbers", "render_page", "trainings"]
