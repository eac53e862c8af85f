"""The command `bmla`: a group of commands; each is options -> dataclass -> one call of the library -> one printed result."""

from typing import Any

import click

from . import __version__
from .commands.completion import completion
from .commands.datasets import datasets
from .commands.demo import demo
from .commands.doctor import doctor
from .commands.export import export, with_subcommands
from .commands.extract import extract
from .commands.fuse import fuse
from .commands.lists import balances, encoders, models
from .commands.predict import predict
from .commands.reference import print_reference
from .commands.report import report
from .commands.reproduce import reproduce
from .commands.serve import serve
from .commands.store import store
from .commands.weights import weights
from .store.errors import BmlaError

EXAMPLES = """\b
Examples:
  bmla demo                                       see the whole path on generated data
  bmla extract --dataset lrw --gpu 0              clips -> feature store
  bmla fuse --ratio 1:2                           feature store -> trained fusion, report
  bmla predict RUN clip.mp4                       trained fusion -> what is said in a clip
  bmla store info stores/lrw.zarr                 what a store holds
  bmla doctor                                     what this machine has and lacks
"""


class OneLine(click.ClickException):
    """An error of the library as click shows it: its text, and its exit code."""

    def __init__(self, error: BmlaError):
        super().__init__(str(error))
        self.exit_code = error.exit_code  # type: ignore[misc]  # click declares it on the class


class Group(click.Group):
    """Turns the errors that the library raises on purpose into one clean line; a bug keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BmlaError as error:
            if ctx.params.get("debug"):
                raise
            raise OneLine(error) from error


@click.group(
    cls=Group, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="bmla")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Balanced multimodal learning for audio-visual research.

    Extract features of sound and sight once, share them as a store, train fusion models on them, and see what each
    modality contributes.
    """


for command in (
    demo, extract, with_subcommands(fuse, export), predict, report, serve, reproduce, store, models, balances, encoders, datasets,
    weights, doctor, completion, print_reference
):  # fmt: skip
    main.add_command(command)
