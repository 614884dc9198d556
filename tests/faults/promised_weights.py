"""What provokes the promised refusals around weights that fine-tuning starts from; see test_promises.py."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from creditflow.core.backbones import has_published
from creditflow.core.errors import UserError
from creditflow.data import python_packages
from creditflow.data.downloads import NotAvailableError
from creditflow.data.python_packages import PythonPackage
from creditflow.models import build, local_weights, published
from creditflow.models.backbones import efficientnet_lite0, from_factory
from creditflow.models.build import ModelSpec
from creditflow.stages import importing
from creditflow.workflow import given_models
from faults.promised_data import Promised, written

LITE0 = efficientnet_lite0.PACKAGED
NOWHERE = PythonPackage("creditflow-has-no-such-package", "1.0")
GREY = ModelSpec("small_cnn", (1, 8, 8), 2, (0.5,), (0.25,))


def without_pip(folder: Path, package: PythonPackage) -> object:
    with mock.patch.object(sys, "executable", str(folder / "no python")):
        return package.deliver("weights.pth", "0" * 64, folder / "w")


def weights(folder: Path, state: Any) -> Path:
    torch.save(state, folder / "w.pth")
    return folder / "w.pth"


def options(**change: Any) -> Namespace:
    given = {"backbone": "small_cnn", "file": Path("w"), "sha256": None, "weights": "IMAGENET1K_V1", "factory": None}
    return Namespace(**(given | {"size": 8, "channels": 1} | change))


def other_package(folder: Path) -> object:
    with mock.patch.object(PythonPackage, "deliver", side_effect=NotAvailableError("not there")):
        return LITE0.deliver(folder / "w")


WEIGHTS: dict[str, Promised] = {
    "data.python_packages.PythonPackage.deliver": (NotAvailableError, [lambda f: without_pip(f, NOWHERE)]),
    "data.python_packages.read_from_wheel": (
        NotAvailableError,
        [lambda f: python_packages.read_from_wheel(written(f / "x.whl"), "w", "0" * 64, f / "w")],
    ),
    "models.backbones.efficientnet_lite0.build": (
        UserError,
        [lambda f: efficientnet_lite0.build((1, 64, 64)), lambda f: efficientnet_lite0.build((3, 31, 64))],
    ),
    "models.backbones.from_factory.build": (
        UserError,
        [
            lambda f: from_factory.build((3, 8, 8)),
            lambda f: from_factory.build((3, 8, 8), "model.pt"),
            lambda f: from_factory.build((3, 8, 8), f"{written(f / 'x.py')}:make", "0" * 64),
            lambda f: from_factory.build((3, 8, 8), "torch.nn:Flatten"),
        ],
    ),
    "models.build.Enlarge.__init__": (
        UserError,
        [lambda f: build.Enlarge((2, 8, 8), (3, 9, 9)), lambda f: build.Enlarge((1, 8, 10), (3, 9, 9))],
    ),
    "models.build.replace_head": (
        UserError,
        [lambda f: build.replace_head(build.build_model(GREY, "x"), 2, "y", enlarges=(1, 9, 9))],
    ),
    "models.local_weights.factory_hash": (
        UserError,
        [lambda f: local_weights.factory_hash("mine"), lambda f: local_weights.factory_hash(f"{f}/absent.py:make")],
    ),
    "models.local_weights.import_network": (
        UserError,
        [
            lambda f: local_weights.import_network("torch.nn:Flat", weights(f, nn.Flatten().state_dict()), (1, 8, 8)),
            lambda f: local_weights.import_network("torchvision:resnet18", f / "absent", (3, 32, 32)),
        ],
    ),
    "models.local_weights.import_own": (
        UserError,
        [
            lambda f: local_weights.import_own("small_cnn", weights(f, {"a": torch.zeros(1)}), 8),
            lambda f: local_weights.import_own("small_cnn", f / "absent", 8),
        ],
    ),
    "models.local_weights.last_linear": (UserError, [lambda f: local_weights.last_linear(nn.Flatten(), "mine")]),
    "models.packaged_models.PackagedModel.deliver": (NotAvailableError, [other_package]),
    "models.packaged_models.PackagedModel.file_name": (UserError, [lambda f: LITE0.file_name("IMAGENET1K_V2")]),
    "models.packaged_models.PackagedModel.normalisation": (UserError, [lambda f: LITE0.normalisation("MINE")]),
    "models.packaged_models.PackagedModel.split": (
        UserError,
        [lambda f: LITE0.split({"_conv_stem.weight": torch.zeros(1)})],
    ),
    "core.backbones.has_published": (UserError, [lambda f: has_published("resnet17")]),
    "models.published.published_model": (UserError, [lambda f: published.published_model("lenet5")]),
    "models.torchvision_models.TorchvisionModel.file_name": (
        UserError,
        [lambda f: published.torchvision_model("resnet18").file_name("mine")],
    ),
    "stages.importing.imported": (
        UserError,
        [
            lambda f: importing.imported(options(factory="mine.py:make")),
            lambda f: importing.imported(options(backbone="from_factory")),
            lambda f: importing.imported(options(file=written(f / "w.pth"))),
        ],
    ),
    "workflow.given_models.checked_factory": (ValueError, [lambda f: given_models.checked_factory("mine")]),
}
