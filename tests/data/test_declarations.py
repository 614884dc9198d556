"""What the files of datasets declare: against torchvision, and against what the workflow reads of them."""

import re
from pathlib import Path

import pytest

from creditflow.compute.torchvision_import import torchvision
from creditflow.core import plugins
from creditflow.data.sources import Download, DownloadEach
from formats import COCO_IDS


def secure(address: str) -> str:
    return re.sub("^http:", "https:", address)


def test_checksums_addresses_and_names_are_torchvisions() -> None:
    here = {name: plugins.load("dataset", name).DATASET for name in plugins.names("dataset")}
    there = torchvision.datasets
    mirrors = [secure(address.rstrip("/")) for address in there.MNIST.mirrors]
    assert list(here["mnist"].sources[0].addresses()) == mirrors
    assert here["mnist"].checksums == {name: f"md5:{value}" for name, value in there.MNIST.resources}
    published = {"svhn": [there.SVHN.split_list[split] for split in ("train", "test")]}
    for name, twin in (("cifar10", there.CIFAR10), ("cifar100", there.CIFAR100), ("stl10", there.STL10)):
        published[name] = [(twin.url, twin.filename, twin.tgz_md5)]
    for name, files in published.items():
        for address in here[name].sources[0].addresses():
            urls = [secure(f"{address}/{file}") for file in here[name].checksums]
            assert urls == [secure(url) for url, _, _ in files]
        assert here[name].checksums == {file: f"md5:{value}" for _, file, value in files}
    categories = torchvision.models._meta._COCO_CATEGORIES
    assert [name for name in categories if name not in ("__background__", "N/A")] == list(here["coco"].class_names)
    assert [index for index, name in enumerate(categories) if name not in ("__background__", "N/A")] == COCO_IDS


@pytest.mark.parametrize("name", plugins.names("dataset"))
def test_https_comes_first_and_http_only_with_the_reason(name: str) -> None:
    dataset = plugins.load("dataset", name)
    text = Path(dataset.__file__).read_text(encoding="utf-8")
    for source in dataset.DATASET.sources:
        if isinstance(source, Download):
            addresses = list(source.addresses())
            assert addresses[0].startswith("https://")
            assert all(address.startswith("https://") for address in addresses) or re.search("#.*https", text)
        if isinstance(source, DownloadEach):
            assert all(address.startswith("https://") for address in source.addresses.values())


def test_what_the_workflow_reads_without_importing_is_true() -> None:
    for name in plugins.names("dataset"):
        assert (
            plugins.declared("dataset", name, "multi_label", False) == plugins.load("dataset", name).DATASET.multi_label
        )
