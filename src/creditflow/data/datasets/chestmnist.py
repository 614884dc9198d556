"""ChestMNIST (MedMNIST v2; Wang et al., 2017): 78,468 + 22,433 grey images of 28x28 pixels, any number of 14 findings.

More than half of the images have no finding. Our reading for top-1 accuracy: they get a fifteenth label, "no finding",
so that there is a label to predict for each image. The 11,219 validation images are left out.
"""

from pathlib import Path

import numpy as np

from creditflow.core.errors import UserError
from creditflow.data.dataset import Dataset, Split
from creditflow.data.formats.medmnist import ADDRESS, read_medmnist
from creditflow.data.sources import DownloadEach

_FINDINGS = (
    "atelectasis",
    "cardiomegaly",
    "effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
    "consolidation",
    "edema",
    "emphysema",
    "fibrosis",
    "pleural",
    "hernia",
)


def _read(folder: Path) -> dict[str, Split]:
    path = folder / "chestmnist.npz"
    splits: dict[str, Split] = {}
    for split, (images, findings) in read_medmnist(path, (28, 28), len(_FINDINGS)).items():
        if not np.isin(findings, (0, 1)).all():
            raise UserError(f"{path}: labels must be zeros and ones; fetch it again")
        nothing = findings.sum(1, keepdims=True) == 0
        splits[split] = images, np.concatenate([findings, nothing], axis=1).astype(np.uint8)
    return splits


DATASET = Dataset(
    checksums={"chestmnist.npz": "md5:02c8a6516a18b556561a56cbdd36c4a8"},
    sources=[DownloadEach({"chestmnist.npz": f"{ADDRESS}/chestmnist.npz?download=1"})],
    read=_read,
    class_names=(*_FINDINGS, "no finding"),
    multi_label=True,
)
