"""What a dataset file declares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditflow.data.sources import Source


@dataclass(frozen=True)
class ImageFiles:
    """Images that stay the files they are (JPEG, or what else Pillow reads), for datasets too large to hold in memory.

    Attributes:
        folder: where they lie.
        names: their paths below it, in the order of the labels.
    """

    folder: Path
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)


#: Images uint8 (N, C, H, W), all of one size, or files; labels int64 (N,), or uint8 zeros and ones (N, K) where an image
#: may have several of the K labels.
Split = tuple[NDArray[np.uint8] | ImageFiles, NDArray[np.int64] | NDArray[np.uint8]]


@dataclass(frozen=True)
class Dataset:
    """A dataset: its raw files, who has them, and how to read them.

    Attributes:
        checksums: of each raw file, by the name that `fetch` gives it. 64 hexadecimal digits are the SHA-256 of its content,
            decompressed; "md5:" and 32 digits are the MD5 of the file as published, which is kept as it is. Empty for a
            dataset that lies in a folder of the user's.
        sources: asked in this order, after the folders of `data.search_paths`.
        read: folder that `fetch` made -> {"train": split, "test": split}.
        class_names: in the order of the labels; a function of the folder that `fetch` made where only the files tell.
        multi_label: whether an image may have several labels. A literal, as the workflow reads it without importing.
    """

    checksums: Mapping[str, str]
    sources: Sequence[Source]
    read: Callable[[Path], dict[str, Split]]
    class_names: Sequence[str] | Callable[[Path], Sequence[str]] = field(default_factory=tuple)
    multi_label: bool = False
