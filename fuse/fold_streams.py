"""Streams that differ from fold to fold of a cross-validation: derived from the run of that fold, which has not seen its test clips.

`visual.bgru` of five folds lies in the store as `visual.bgru.fold-0` to `visual.bgru.fold-4`; asked for by the plain name, each fold
of a sweep takes its own. (Features of one run are no use to the run of another fold: it was trained on the other's test clips.)
"""

from collections.abc import Sequence


def fold_name(stream: str, fold: int) -> str:
    """The name of a fold's stream: of visual.bgru@blur=4, visual.bgru.fold-0@blur=4."""
    base, at, noise = stream.partition("@")
    return f"{base}.fold-{fold}{at}{noise}"


def stored_names(stream: str, there: Sequence[str], folds: int) -> tuple[str, ...]:
    """What a name stands for in a store: the stream itself, or one for each fold where that is what there is."""
    each = tuple(fold_name(stream, fold) for fold in range(folds))
    return each if each and stream not in there and set(each) <= set(there) else (stream,)


def asked_names(there: Sequence[str], folds: int) -> list[str]:
    """The names that can be asked for, sorted: those of the store, and those that stand for one stream a fold."""
    first = {fold_name(name, 0): name for name in map(without_fold, there)}
    joint = [name for stored, name in first.items() if stored in there and len(stored_names(name, there, folds)) > 1]
    return sorted({*there, *joint})


def without_fold(stream: str) -> str:
    """The reverse of `fold_name`; any other name as it is."""
    base, at, noise = stream.partition("@")
    plain, dot, number = base.rpartition(".fold-")
    return f"{plain}{at}{noise}" if dot and number.isdigit() else stream
