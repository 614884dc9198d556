"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 60,000 + 10,000 grey images of 28x28 pixels, ten classes."""

from collections.abc import Sequence

from creditflow.data.dataset import Dataset
from creditflow.data.formats.idx import read_mnist_like
from creditflow.data.sources import DebianPackage, Download


def _mirrors() -> Sequence[str]:
    from creditflow.compute.torchvision_import import torchvision

    # Keras's copy comes first, as the publisher's server has no https. The contents are verified by SHA-256 either way.
    mirrors: list[str] = torchvision.datasets.FashionMNIST.mirrors
    return ["https://storage.googleapis.com/tensorflow/tf-keras-datasets", *mirrors]


DATASET = Dataset(
    checksums={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    sources=[Download(_mirrors), DebianPackage("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist")],
    read=read_mnist_like,
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
)
