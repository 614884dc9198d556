"""NUS-WIDE-21 (Chua et al., 2009): photographs with any of the 21 most frequent concepts.

The labels of an image are all its concepts. Lists say which images a split has: usually 10,500 (500 of each concept) +
2,100 (100 of each). For retrieval, database.txt lists the images that are searched.
"""

from pathlib import Path

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.data.dataset import Dataset, ImageFiles, Split
from creditflow.data.formats.lists import check_disjoint, lists_in, locate, read_list
from creditflow.data.sources import UserFolder

_N_CONCEPTS = 21
#: The most bytes of the list of their names.
_MAX_NAMES = 1 << 20

_FOLDER = UserFolder(
    "nus_wide",
    ("train.txt", "test.txt"),
    "https://github.com/swuxyj/DeepHash-pytorch (the lists in data/nuswide_21, and where the images are)",
)


def _read(raw: Path) -> dict[str, Split]:
    folder = _FOLDER.located(raw)
    lists = {split: read_list(folder / f"{split}.txt", _N_CONCEPTS) for split in lists_in(folder)}
    check_disjoint({split: names for split, (names, _) in lists.items()}, folder)
    return {
        split: (ImageFiles(folder, [locate(folder, name) for name in names]), labels)
        for split, (names, labels) in lists.items()
    }


def _class_names(raw: Path) -> tuple[str, ...]:
    """Returns the concepts' names from a file concepts.txt beside the lists, one name a line; without it, numbers.

    The lists themselves do not say which concept a column is.
    """
    path = _FOLDER.located(raw) / "concepts.txt"
    if not path.exists():
        return tuple(f"concept {number}" for number in range(1, _N_CONCEPTS + 1))
    try:
        lines = files.read_plain(path, _MAX_NAMES).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); mend it or move it away") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(set(names)) != _N_CONCEPTS:
        raise UserError(f"{path} has {len(set(names))} different names, not {_N_CONCEPTS}; mend it or move it away")
    return names


DATASET = Dataset(checksums={}, sources=[_FOLDER], read=_read, class_names=_class_names, multi_label=True)
