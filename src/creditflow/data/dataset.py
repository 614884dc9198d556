"""What a file in `creditflow/data/datasets` declares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditflow.data.sources import Source


@dataclass(frozen=True)
class ImageFiles:
    """Images that stay in their files (JPEG, or what else Pillow reads): of datasets that are too large for one array.

    Attributes:
        folder: the folder of the files.
        names: their paths below it, in the order of the labels.
    """

    folder: Path
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)


#: Images and labels. Images are uint8 (N, C, H, W), all of one size, or files. Labels are int64 (N,), or uint8 zeros
#: and ones (N, K) where an image may have several of the K labels.
Split = tuple[NDArray[np.uint8] | ImageFiles, NDArray[np.int64] | NDArray[np.uint8]]


@dataclass(frozen=True)
class Dataset:
    """A dataset: its raw files, where they come from, and how to read them.

    Attributes:
        checksums: for the name of each raw file its checksum. 64 hexadecimal digits are the SHA-256 of its content,
            decompressed; "md5:" and 32 digits are the MD5 of the file as published, which is kept as it is. Empty for a
            dataset that lies in a folder of the user's.
        sources: where `fetch` looks after the folders of `data.search_paths`, in this order.
        read: function of the folder that `fetch` wrote; returns {"train": split, "test": split}.
        class_names: names in the order of the labels, or, where only the files tell, a function of the folder that
            `fetch` wrote.
        multi_label: whether an image may have several labels. It must be a literal: the workflow reads it without
            importing the file.
        named_folder: whether it lies in a folder that the experiment names (`path`) and may split (`split`). It is a
            literal, too.
    """

    checksums: Mapping[str, str]
    sources: Sequence[Source]
    read: Callable[[Path], dict[str, Split]]
    class_names: Sequence[str] | Callable[[Path], Sequence[str]] = field(default_factory=tuple)
    multi_label: bool = False
    named_folder: bool = False
