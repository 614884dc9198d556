"""MNIST (LeCun, Bottou, Bengio and Haffner, 1998): 60,000 + 10,000 grey images of 28x28 pixels, the ten digits."""

from functools import partial

from creditflow.data.dataset import Dataset
from creditflow.data.formats.idx import read_mnist_like
from creditflow.data.sources import Download

_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://yann.lecun.com/exdb/mnist")

DATASET = Dataset(
    checksums={
        "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    },
    sources=[Download(lambda: _MIRRORS)],
    read=partial(read_mnist_like, suffix=".gz"),
    class_names=tuple("0123456789"),
)
