"""PathMNIST (MedMNIST v2; Kather et al., 2019): 89,996 + 7,180 colour images of 28x28 pixels, nine kinds of tissue.

The tissue is of the human colon. The 10,004 validation images are left out.
"""

from pathlib import Path

from creditflow.core.errors import UserError
from creditflow.data.dataset import Dataset, Split
from creditflow.data.formats.medmnist import ADDRESS, read_medmnist
from creditflow.data.sources import DownloadEach


def _read(folder: Path) -> dict[str, Split]:
    path = folder / "pathmnist.npz"
    splits: dict[str, Split] = {}
    for split, (images, labels) in read_medmnist(path, (28, 28, 3), 1).items():
        if labels.min(initial=0) < 0 or labels.max(initial=0) > 8:
            raise UserError(f"{path}: labels must lie in 0..8, not {labels.min()}..{labels.max()}; fetch it again")
        splits[split] = images, labels[:, 0]
    return splits


DATASET = Dataset(
    checksums={"pathmnist.npz": "md5:a8b06965200029087d5bd730944a56c1"},
    sources=[DownloadEach({"pathmnist.npz": f"{ADDRESS}/pathmnist.npz?download=1"})],
    read=_read,
    class_names=(
        "adipose",
        "background",
        "debris",
        "lymphocytes",
        "mucus",
        "smooth muscle",
        "normal colon mucosa",
        "cancer-associated stroma",
        "colorectal adenocarcinoma epithelium",
    ),
)
