"""What a dataset file declares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditflow.data.sources import Source

#: Images uint8 (N, C, H, W) and labels int64 (N,).
Split = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Dataset:
    """A dataset: its raw files, who has them, and how to read them.

    Attributes:
        checksums: SHA-256 of each raw file's content, decompressed; the keys are the names `fetch` gives the files.
        sources: asked in this order, after the folders of `data.search_paths`.
        read: folder of raw files -> {"train": split, "test": split}.
        class_names: in the order of the labels.
    """

    checksums: Mapping[str, str]
    sources: Sequence[Source]
    read: Callable[[Path], dict[str, Split]]
    class_names: Sequence[str] = field(default_factory=tuple)
