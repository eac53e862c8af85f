"""Which clips a run was trained on, chosen by and tested with: `clips.parquet` of its folder.

One row a clip: id, group (the recording that it was cut from) and split. With it, features of the run can say of any clip whether
it was seen, in another store of the same data as well.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..store.errors import BmlaError
from .data import Features
from .models.table import takes

NAME = "clips.parquet"
COLUMNS = ("id", "group", "split")


def write_clips(folder: Path, features: Features, model: str) -> None:
    """Args: features: with the splits of the run's fold."""
    rows = np.sort(np.concatenate([features.clips(split, takes(model)) for split in ("train", "dev", "test")]))
    columns = (features.ids, features.groups, features.split)
    table = {name: pa.array(column[rows].tolist(), pa.string()) for name, column in zip(COLUMNS, columns, strict=True)}
    pq.write_table(pa.table(table), folder / NAME, compression="zstd")


def clips_seen(folder: Path, ids: np.ndarray, groups: np.ndarray, split: str) -> np.ndarray:
    """Which of some clips the run of this folder had in a split.

    A clip counts as seen where another one of its recording was: its sound and its face are the same.

    Args:
        ids, groups: (n,) text; a clip without a group is one of its own, under its id.

    Returns:
        (n,) bool.

    Raises:
        BmlaError: the run does not say.
    """
    try:
        table = pq.read_table(folder / NAME, columns=list(COLUMNS), memory_map=False)
        columns = {name: np.asarray(table[name].to_pylist(), object) for name in COLUMNS}
    except FileNotFoundError as error:
        raise BmlaError(f"{folder}: it does not say which clips it was trained on ({NAME}): train it again") from error
    except (OSError, KeyError, pa.ArrowException) as error:
        raise BmlaError(f"{folder}/{NAME}: can't be read: {str(error).splitlines()[0]}") from error
    mine = columns["split"] == split
    own_ids, own_groups = set(columns["id"][mine].tolist()), set(columns["group"][mine].tolist())
    seen = [i in own_ids or g in own_groups for i, g in zip(ids.tolist(), groups.tolist(), strict=True)]
    return np.array(seen, bool)
