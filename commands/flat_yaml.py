"""A YAML file of one level: keys with a text or a list of texts, each with its line. Nothing in it is built but text.

Every value is taken as it is written, so that 1:2 stays 1:2 (to YAML 1.1 it is a number to base 60) and no a word.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from ..store.errors import UsageError

LARGEST_BYTES = 1 << 16
TEXT = "tag:yaml.org,2002:str"  # what the base loader takes every value for that has no tag of its own


@dataclass(frozen=True)
class Entry:
    """One key of a file.

    Attributes:
        line: counted from 1.
        value: None where it is empty or neither a text nor a list of texts.
    """

    key: str
    line: int
    value: str | list[str] | None


def read_flat(path: Path) -> list[Entry]:
    """All keys, in their order.

    Raises:
        UsageError: it can't be read, is no YAML, or no mapping.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise UsageError(f"{path}: more than {LARGEST_BYTES} bytes, expected a few lines such as ratio: 1:2,1:1")
        root = yaml.compose(path.read_text("utf-8"), yaml.BaseLoader)
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror or error}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{path}{line}: no YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no YAML: {str(error).splitlines()[0]}") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path}, line {root.start_mark.line + 1}: expected lines such as ratio: 1:2,1:1")
    return [Entry(str(key.value), key.start_mark.line + 1, value_of(value)) for key, value in root.value]


def value_of(node: yaml.Node) -> str | list[str] | None:
    if isinstance(node, yaml.ScalarNode):
        return str(node.value) if node.tag == TEXT and node.value else None
    parts = [value_of(part) if isinstance(part, yaml.ScalarNode) else None for part in node.value]
    texts = [part for part in parts if isinstance(part, str)]
    return texts if isinstance(node, yaml.SequenceNode) and texts and len(texts) == len(parts) else None
