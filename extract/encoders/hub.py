"""A Hugging Face model from a folder on this machine: config, pre-processor and weights, in float32, and nothing made up."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from ...store.errors import BmlaError
from ..weights import find_hf_folder, first_line, hf_weight_file, sha256_of


@dataclass(frozen=True)
class HubModel:
    """A loaded model with its pre-processor and where it came from (as in the stream specification)."""

    model: Any
    processor: Any
    weights: dict[str, Any]


def load_hub_model(
    name: str,
    folders: Sequence[Path],
    processor: Any,
    check: Callable[[Any], None],
    dispensable: Callable[[str], bool],
) -> HubModel:
    """Loads a model from this machine alone.

    Args:
        name: a Hugging Face id or a folder.
        folders: where weights are looked for.
        processor: transformers' class that loads the model's pre-processor.
        check: raises UsageError for a config that the caller can't use.
        dispensable: which weights, by name, a checkpoint may lack because no feature depends on them.

    Raises:
        WeightsNotFound: naming the files, the places and the command that gets them.
        BmlaError: for a file that can't be read or does not hold all weights.
    """
    folder = find_hf_folder(name, folders)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        loaded = processor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BmlaError(f"{folder}: its json files describe no model ({first_line(error)})") from error
    check(config)
    file = hf_weight_file(folder)
    model = _load_weights(folder, file, config, dispensable)
    source = folder.name if Path(name).is_dir() else name
    return HubModel(model, loaded, {"source": source, "sha256": sha256_of(file)})


def _load_weights(folder: Path, file: Path, config: Any, dispensable: Callable[[str], bool]) -> Any:
    """The model; a checkpoint that lacks a weight is an error, where transformers would fill in random numbers."""
    try:
        with quiet():
            model, info = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                use_safetensors=file.suffix == ".safetensors",
                weights_only=True,
            )
    except (OSError, RuntimeError, ValueError, SafetensorError, UnpicklingError) as error:
        raise BmlaError(f"{file}: can't be loaded as a {config.model_type} model ({first_line(error)})") from error
    if missing := sorted(key for key in info["missing_keys"] if not dispensable(key)):
        raise BmlaError(f"{file}: lacks {len(missing)} weights of a {config.model_type} model, such as {missing[0]}")
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' progress bar and its report of unused heads off the screen."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
