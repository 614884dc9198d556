"""Readers of bytes from outside, fed with anything: what they return is whole, and what they raise is documented.

Whoever writes a new reader adds it to the lists here: tests compare them with the code.
"""

import argparse
import ast
import contextlib
import gzip
import hashlib
import importlib
import inspect
import io
import json
import os
import pickle
import pkgutil
import re
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save as dump_arrays
from safetensors.torch import save as dump_tensors

import formats
from creditflow.compute.checkpoints import load_checkpoint
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.files import read_json, seal, write_parquet
from creditflow.data import formats as library_formats
from creditflow.data.dataset import ImageFiles
from creditflow.data.downloads import NotAvailableError
from creditflow.data.formats import cifar
from creditflow.data.formats.archives import read_members, unpack
from creditflow.data.formats.gz import ExpansionError, read_at_most
from creditflow.data.formats.idx import read_idx
from creditflow.data.formats.lists import read_list
from creditflow.data.formats.mat import read_mat
from creditflow.data.image_files import read_image
from creditflow.data.packing import packed
from creditflow.data.prepared import load_prepared, save_prepared
from creditflow.data.python_packages import read_from_wheel
from creditflow.data.sources import receive
from creditflow.instrument.command import options
from creditflow.instrument.images import load_images
from creditflow.models import published
from creditflow.models.factories import make_model
from creditflow.models.storage import load_feedback, load_model
from creditflow.models.weights import load_weights
from creditflow.populations.storage import load_population
from creditflow.records.listing import read_listed
from creditflow.records.record import read_record
from creditflow.reporting.collection import read_frame
from creditflow.reporting.published import read_published
from creditflow.reporting.results_page import results_page
from creditflow.retrieval.storage import load_codes
from creditflow.stages.command_line import json_object
from creditflow.workflow import published_hyperparameters
from creditflow.workflow.loading import load_experiment
from helpers import ROOT

often = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["small_cnn", "bp", "0" * 64, "accuracy"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
)


def refused(read: Callable[[], Any]) -> bool:
    """Runs a reader; the only exception it may raise is UserError, in one line."""
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error) and str(error)
        return True
    return False


RECORD = {
    "format": 1,
    "keys": dict.fromkeys(("experiment", "task", "dataset", "backbone", "rule", "attack", "gradient"), "a")
    | {"seed": 0},
    "metrics": [{"metric": "accuracy", "epsilon": None, "value": 0.5, "n": 2}],
    "outcomes": {"file": "r.safetensors", "sha256": "0"},
}
SIDECAR = {"format": 1, "spec": {"backbone": "small_cnn"}, "rule": "bp", "sha256": {"weights": "0", "feedback": "0"}}
POPULATION = {
    "format": 1,
    "rule": "bp",
    "spec": {},
    "members": [{"seed": 0}],
    "measured_images": {},
    "settings": {"settings": {}},
    "sha256": "0",
}

READERS: dict[str, Callable[[Path], Any]] = {
    "record": read_record,
    "sidecar": lambda path: load_model(path.with_suffix(".safetensors")),
    "feedback": lambda path: load_feedback(path.with_suffix(".safetensors")),
    "population": lambda path: load_population(path.with_suffix(".safetensors")),
}


@pytest.mark.parametrize("kind", READERS)
@often
@given(data=st.data())
def test_json_files_with_anything_in_them(kind: str, data: st.DataObject) -> None:
    start = {"record": RECORD, "sidecar": SIDECAR, "feedback": SIDECAR, "population": POPULATION}[kind]
    content: Any = json.loads(json.dumps(start))
    for _ in range(data.draw(st.integers(1, 3))):
        place = content
        while isinstance(place, dict) and place and data.draw(st.booleans()):
            place = place[data.draw(st.sampled_from(sorted(place)))]
        if isinstance(place, dict) and place:
            place[data.draw(st.sampled_from(sorted(place)))] = data.draw(values)
        else:
            content = data.draw(values)
    if isinstance(content, dict) and data.draw(st.booleans()):
        content = seal({key: value for key, value in content.items() if key != "seal"})
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "r.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        path.with_suffix(".safetensors").write_bytes(dump_arrays({"correct": np.zeros((1, 2), bool)}))
        assert refused(lambda: READERS[kind](path))


BYTES: dict[str, Callable[[Path], Any]] = {
    "record": read_record,
    "model": load_model,
    "population": load_population,
    "prepared": lambda path: load_prepared(path, "train"),
    "codes": lambda path: load_codes(path, {}),
    "frame": lambda path: read_frame(path, "records"),
    "published": read_published,
    "idx": read_idx,
    "experiments": lambda path: load_experiment(path.parent, "mine"),
    "page": lambda path: results_page(path.parent),
}
NAMES = {"experiments": "mine.yaml", "page": "claims.yaml", "model": "m.safetensors", "population": "m.safetensors"}


@pytest.mark.parametrize("kind", BYTES)
@often
@given(
    content=st.one_of(
        st.binary(max_size=200), st.text(max_size=80).map(str.encode), values.map(lambda one: json.dumps(one).encode())
    )
)
def test_files_of_anything(kind: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / NAMES.get(kind, "file")
        path.write_bytes(content)
        if path.suffix == ".safetensors":
            path.with_suffix(".json").write_bytes(content)
        refused(lambda: BYTES[kind](path))


@often
@given(
    facts=values, dtype=st.sampled_from(["uint8", "int64", "float32"]), shape=st.lists(st.integers(0, 3), max_size=4)
)
def test_safetensors_of_anything(facts: Any, dtype: str, shape: list[int]) -> None:
    arrays = {name: np.zeros(shape, dtype) for name in ("train_images", "train_labels", "query_codes", "query_labels")}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "file"
        path.write_bytes(dump_arrays(arrays, metadata={"creditflow": json.dumps(facts)}))
        assert refused(lambda: load_prepared(path, "train"))
        assert refused(lambda: load_codes(path, {}))


@often
@given(
    frame=st.dictionaries(st.text(max_size=5), st.lists(st.integers(), min_size=2, max_size=2), max_size=3),
    kind=st.sampled_from(["records", "summary", "audit"]),
)
def test_tables_of_anything(frame: dict[str, list[int]], kind: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "t.parquet"
        try:
            pd.DataFrame(frame).to_parquet(path)
        except (OverflowError, ValueError):
            return
        assert refused(lambda: read_frame(path, kind))


@often
@given(text=st.one_of(st.text(max_size=30), values.map(json.dumps)))
def test_settings_on_the_command_line(text: str) -> None:
    try:
        assert isinstance(json_object(text), dict)
    except argparse.ArgumentTypeError as error:
        assert "\n" not in str(error)
    assert refused(lambda: options.json_object(text, "--settings")) or isinstance(json.loads(text), dict)


def test_checkpoints_of_anything(tmp_path: Path) -> None:
    said: list[str] = []
    body = pickle.dumps({"identity": "me", "state": torch.nn.Linear})
    path = tmp_path / "c"
    path.write_bytes(hashlib.sha256(body).digest() + body)
    assert load_checkpoint(path, "me", said.append) is None
    assert len(said) == 1


#: The errors that readers promise: those of a user, and of the parts of a reader.
DOCUMENTED = (UserError, NotAvailableError, ExpansionError)

#: What breaks readers that were written for well-formed files.
HOSTILE = (
    b"",
    b"\x00" * 1000,
    b"\xff" * 300,
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b"9" * 5000,
    b'["\\ud800"]',
    b"NaN",
    b"\x1f\x8b\x08\x00junk",
    gzip.compress(b"")[:-3],
    b"\xef\xbb\xbf\r\n",
    b"PK\x05\x06" + bytes(18),
    b"\x80\x02]q\x00(K\x01J",
    b"\xff" * 8 + b"{}",
)


class Case:
    """A reader, and files that it reads; `mutations` of each are tried (few where each takes long)."""

    def __init__(self, files: Mapping[str, bytes | str], read: Callable[[Path], Any], mutations: int = 60) -> None:
        self.files, self.read, self.mutations = files, read, mutations

    def damaged(self, name: str, rng: np.random.Generator) -> bytes:
        """Returns a file with up to eight other bytes, mostly near the ends, and sometimes without its end."""
        content = self.files[name]
        spoilt = bytearray(content if isinstance(content, bytes) else content.encode())
        for _ in range(rng.integers(1, 9)):
            start = rng.choice([0, 0, max(len(spoilt) - 60, 0)])
            span = len(spoilt) if rng.random() < 0.3 else min(len(spoilt), 220)
            spoilt[min(start + int(rng.integers(span)), len(spoilt) - 1)] = rng.integers(256)
        return bytes(spoilt[: rng.integers(len(spoilt))] if rng.random() < 0.2 else spoilt)


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(formats.RNG.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def saved(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name) / "file")
        return (Path(name) / "file").read_bytes()


def from_wheel(folder: Path) -> None:
    read_from_wheel(folder / "f", "train/a.jpg", hashlib.sha256(ARCHIVES["train/a.jpg"]).hexdigest(), folder / "out")


def folder_dataset(name: str, files: Mapping[str, bytes | str], mutations: int = 30) -> Case:
    """Returns the case of a dataset that lies in a folder of the user's; `fetch` has noted where."""
    return Case({"origin.json": "{}"} | dict(files), read_dataset(name), mutations)


def read_dataset(name: str) -> Callable[[Path], Any]:
    dataset = plugins.load("dataset", name).DATASET

    def read(folder: Path) -> None:
        dataset.read(folder)
        if callable(dataset.class_names):
            dataset.class_names(folder)

    return read


def pack_images(folder: Path) -> object:
    images = ImageFiles(folder, sorted(path.name for path in folder.iterdir()))
    return packed({"train": (images, np.zeros(len(images), np.int64))})


def imagenet_files() -> dict[str, bytes | str]:
    """Returns a copy of ImageNet with the development kit, in which each class has one image that is no file."""
    with tempfile.TemporaryDirectory() as name:
        classes = Path(name) / "classes"
        formats.write(classes, {f"{wnid}/{wnid}_1.JPEG": b"" for wnid in formats.WNIDS})
        formats.imagenet(Path(name) / "whole", classes, kit=True)
        kit = Path(name) / "whole/ILSVRC2012_devkit_t12"
        return {str(path.relative_to(kit.parent)): path.read_bytes() for path in kit.rglob("*") if path.is_file()}


def read_imagenet_kit(folder: Path) -> object:
    return plugins.load("dataset", "imagenet")._truth(folder, formats.WNIDS)


def write_weights(path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2)}, path)


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, images=np.zeros((4, 1, 8, 8), np.uint8), labels=np.arange(4))


def write_torchscript(path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(3, 2), torch.ones(1, 3)).save(path)


def write_exported(path: Path) -> None:
    with path.open("wb") as file:
        dynamic = ({0: torch.export.Dim.DYNAMIC},)
        torch.export.save(torch.export.export(torch.nn.Linear(3, 2), (torch.ones(4, 3),), dynamic_shapes=dynamic), file)


def write_prepared(path: Path) -> None:
    split = np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 1, 0, 1])
    save_prepared(path, {"train": split, "test": split}, ["a", "b"])


def read_hyperparameters(folder: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published_hyperparameters, "FOLDER", folder)
        chosen = {"file": "tp", "table": "table1", "row": "mnist", "variant": ""}
        return published_hyperparameters._of_dataset(chosen, ["bp", "ddtp_linear"], "here")


HYPERPARAMETERS = next(iter(sorted((ROOT / "config/hyperparameters").glob("*.csv"))))
ARCHIVES = {"train/a.jpg": b"first" * 50, "train/b.jpg": b"second" * 50}
SMALL_LIST = "images/1.jpg 0 1\nimages/2.jpg 1 0\n"
CLAIMS = sorted((ROOT / "docs/results").rglob("claims.yaml"))

#: Made when a test asks for them, as every collection of tests would have to wait for them.
CASES: dict[str, Callable[[], Case]] = {
    "tar": lambda: Case({"f": formats.tar(ARCHIVES)}, lambda folder: read_members(folder / "f", ["train/a.jpg"])),
    "zip": lambda: Case(
        {"f": formats.zipped(ARCHIVES)}, lambda folder: unpack(folder / "f", folder / "out", ["train"]), 200
    ),
    "gzip": lambda: Case(
        {"f": gzip.compress(b"content" * 99)}, lambda folder: read_at_most((folder / "f").open("rb"), 9999)
    ),
    "idx": lambda: Case({"f": formats.idx(np.zeros((3, 4, 5)))}, lambda folder: read_idx(folder / "f")),
    "cifar names": lambda: Case(
        {"f": formats.tar({"meta": formats.python2_pickle({b"names": [b"cat", b"d\xff"]})})},
        lambda folder: cifar.read_names(folder / "f", "meta", b"names"),
    ),
    "cifar batch": lambda: Case(
        {"f": formats.python2_pickle({b"labels": [3, 2**30], b"data": np.zeros((2, 3072), np.uint8)})},
        lambda folder: cifar._batch((folder / "f").read_bytes(), b"labels", "f"),
        200,
    ),
    "list": lambda: Case({"f": SMALL_LIST}, lambda folder: read_list(folder / "f", 2)),
    "mat": lambda: Case(
        {"f": formats.meta_mat(formats.WNIDS[:20])}, lambda folder: read_mat(folder / "f", ["synsets"]), 8
    ),
    "image": lambda: Case(
        {kind: picture(kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM")},
        lambda folder: [read_image(path, "RGB", 8) for path in folder.iterdir() if path.stat().st_size],
    ),
    "received content": lambda: Case(
        {"f": gzip.compress(b"x" * 999)},
        lambda folder: receive((folder / "f").open("rb"), "0" * 64, folder / "out", "f"),
    ),
    "wheel": lambda: Case({"f": formats.zipped(ARCHIVES)}, from_wheel),
    "weights": lambda: Case({"f": saved(write_weights)}, lambda folder: published._read_state(folder / "f")),
    "any weights": lambda: Case(
        {"f": saved(write_weights), "f.safetensors": dump_tensors({"weight": torch.ones(2, 3), "bias": torch.ones(2)})},
        lambda folder: [load_weights(torch.nn.Linear(3, 2), path) for path in sorted(folder.glob("*.*"))],
    ),
    "npz": lambda: Case({"f.npz": saved(write_npz)}, lambda folder: load_images(str(folder / "f.npz")), 200),
    "folder of images": lambda: Case(
        {"a/1.png": picture("PNG"), "b/2.jpeg": picture("JPEG")}, lambda folder: load_images(str(folder), size=8)
    ),
    "TorchScript": lambda: Case({"f.pt": saved(write_torchscript)}, lambda folder: make_model("f.pt", base=folder), 30),
    "torch.export": lambda: Case({"f.pt2": saved(write_exported)}, lambda folder: make_model("f.pt2", base=folder), 15),
    "prepared": lambda: Case({"f": saved(write_prepared)}, lambda folder: load_prepared(folder / "f", "train")),
    "table": lambda: Case(
        {"f": saved(lambda path: write_parquet(path, pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})))},
        lambda folder: read_frame(folder / "f", "records"),
    ),
    "json": lambda: Case({"f": json.dumps(seal({"a": [1, "x"]}))}, lambda folder: read_json(folder / "f", "a note")),
    "published numbers": lambda: Case(
        {"f": (ROOT / "config/published/biotorch.csv").read_bytes()}, lambda folder: read_published(folder / "f")
    ),
    "hyper-parameters": lambda: Case({"tp.csv": HYPERPARAMETERS.read_bytes()}, read_hyperparameters),
    "claims": lambda: Case({"claims.yaml": CLAIMS[0].read_bytes()}, results_page, 10),
    "imagenet's kit": lambda: Case(imagenet_files(), read_imagenet_kit, 6),
    "dataset chestmnist": lambda: Case(
        formats.medmnist("chestmnist", (28, 28), formats.findings), read_dataset("chestmnist"), 40
    ),
    "dataset cifar10": lambda: Case(formats.cifar10()[0], read_dataset("cifar10"), 20),
    "dataset cifar100": lambda: Case(formats.cifar100()[0], read_dataset("cifar100"), 15),
    "dataset coco": lambda: folder_dataset("coco", {n: c for n, c in formats.coco().items() if n.endswith("json")}),
    "dataset digits": lambda: Case({"digits.csv": ("1," * 64 + "1\n") * 1797}, read_dataset("digits"), 15),
    "dataset fashion_mnist": lambda: Case(
        {name.removesuffix(".gz"): content for name, content in formats.mnist()[0].items()},
        read_dataset("fashion_mnist"),
    ),
    "packed images": lambda: Case({f"{index}.png": picture("PNG") for index in range(2)}, pack_images, 30),
    "dataset image_folder": lambda: Case(
        {"origin.json": '{"folder": "images", "split": {"test": 0.5}, "state": ""}'}, read_dataset("image_folder")
    ),
    "dataset imagenet": lambda: folder_dataset(
        "imagenet", {"train/n01440764/n01440764_1.JPEG": b"1", "val/x": b"1"}, 5
    ),
    "dataset imagenet100": lambda: folder_dataset("imagenet100", formats.imagenet100(), 10),
    "dataset mnist": lambda: Case(formats.mnist()[0], read_dataset("mnist")),
    "dataset nus_wide": lambda: folder_dataset("nus_wide", formats.nus_wide() | {"concepts.txt": "a\nb\n"}),
    "dataset pathmnist": lambda: Case(formats.pathmnist()[0], read_dataset("pathmnist"), 20),
    "dataset stl10": lambda: Case(formats.stl10()[0], read_dataset("stl10"), 10),
    "dataset svhn": lambda: Case(formats.svhn()[0], read_dataset("svhn"), 3),
}


@cache
def case_of(name: str) -> Case:
    """Returns the case of this name, which is made once, and in the same way whichever tests ran before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CASES[name]()


@pytest.mark.parametrize("name", CASES)
def test_damaged_files_end_in_a_documented_error(name: str, tmp_path: Path) -> None:
    """The whole files are read first; of what is damaged, each reader raises nothing but what it documents."""
    case = case_of(name)
    rng = np.random.default_rng(0)
    formats.write(tmp_path, case.files)
    for file, content in case.files.items():
        if file.endswith(".jpg"):
            continue  # images are the case "image"
        hostile = HOSTILE if case.mutations >= 10 else HOSTILE[:4]
        for spoilt in [*hostile, *(case.damaged(file, rng) for _ in range(case.mutations))]:
            (tmp_path / file).write_bytes(spoilt)
            try:
                case.read(tmp_path)
            except DOCUMENTED as error:
                assert str(error) and "\n" not in str(error), spoilt[:200]
            except Exception as error:
                raise AssertionError(f"{type(error).__name__}: {error} of {file}: {spoilt[:200]!r}") from error
        formats.write(tmp_path, {file: content})


#: Cases that get an open stream, not a path.
STREAMS = {"gzip", "received content", "cifar batch"}


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fails if the block takes longer."""

    def late(number: int, frame: object) -> None:
        pytest.fail(f"not done after {seconds} s")  # no Exception, so that no reader takes it for damage

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", sorted(set(CASES) - STREAMS))
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    case = case_of(name)
    formats.write(tmp_path, case.files)
    for file in case.files:
        for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
            (tmp_path / file).unlink()
            make(tmp_path / file)
            with within(20), contextlib.suppress(*DOCUMENTED):
                case.read(tmp_path)
        (tmp_path / file).unlink()
        formats.write(tmp_path, {file: case.files[file]})


#: Names of functions and classes that read the content of files or bytes; those of this library, and those that only
#: look at its own Python, are no readers.
_READER = re.compile(
    r"((safe_)?open|fdopen|open_(binary|text)|mmap|memmap|frombytes|decompress(obj)?|\w*(?<!Temporary)File"
    r"|\w+Unpickler)$"
    r"|_*(read|scan|load|parse|compose|decode|unpack|deserialize|genfrom|from(file|buffer|string|text|txt|csv|json))"
)
_OUR_OWN = ("creditflow", "plugins")


def reads(source: str) -> bool:
    """Says whether Python calls, or passes on, anything that reads files: by its name, whatever it was imported as.

    Opening a file for writing alone is no reading. What is called on a value of the library's own is judged where it
    is defined.
    """
    tree = ast.parse(source)
    modules = {
        alias.asname or alias.name.partition(".")[0]: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(_is_reading(call, modules, names) for call in called)


def _is_reading(call: ast.Call, modules: Mapping[str, str], names: Mapping[str, tuple[str, str]]) -> bool:
    function = call.func
    if isinstance(function, ast.Name):
        module, name = names.get(function.id, ("", function.id))
        foreign = (module and not module.startswith(_OUR_OWN)) or name in (
            "open",
            "read_plain",
            "read_csv",
            "check_plain",
        )
        return bool(foreign and _READER.match(name)) and not _only_writes(call, 1)
    if not isinstance(function, ast.Attribute):
        return False
    name, base = function.attr, function.value
    if name in ("read_plain", "read_bytes", "read_text"):
        return True
    if isinstance(base, ast.Name) and names.get(base.id, ("", ""))[0].startswith(_OUR_OWN):
        return False
    if name == "open":
        return not _only_writes(call, 0)
    while isinstance(base, ast.Attribute):
        base = base.value
    foreign = isinstance(base, ast.Name) and (base.id in modules or base.id in names)
    return foreign and bool(_READER.match(name))


def _only_writes(call: ast.Call, place: int) -> bool:
    modes = [*call.args[place : place + 1], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(
        isinstance(mode, ast.Constant) and str(mode.value)[:1] in "wxa" and "+" not in str(mode.value) for mode in modes
    )


@pytest.mark.parametrize(
    "source",
    [
        "path.open().read()",
        "path.open(mode='rb')",
        "path.open('r+b')",
        "path.open('w+')",
        "open(path)",
        "import io; io.open(path)",
        "import os; os.open(path, 0); os.fdopen(3)",
        "from os import read as look; look(3, 4)",
        "import numpy as np; np.genfromtxt(path)",
        "from numpy import fromfile as f; f(path)",
        "import csv; csv.reader(path)",
        "import tomllib; tomllib.load(path)",
        "import xml.etree.ElementTree as ET; ET.parse(path)",
        "import pyarrow.parquet as pq; pq.read_table(path)",
        "import h5py; h5py.File(path)",
        "from zipfile import ZipFile as Z; Z(path)",
        "import zlib; zlib.decompress(data)",
        "import safetensors.torch; safetensors.torch.load_file(path)",
        "from safetensors import deserialize; deserialize(data)",
        "import pickle; pickle.loads(data)",
        "from torchvision.io import decode_image; decode_image(path)",
        "import configparser; configparser.read(path)",
        "from creditflow.core.files import read_plain; read_plain(path)",
        "from creditflow.core import files; files.read_plain(path)",
    ],
)
def test_a_reader_is_seen_however_it_is_written(source: str) -> None:
    assert reads(source)


@pytest.mark.parametrize(
    "source",
    [
        "path.open('wb').write(b'')",
        "open(path, 'x', encoding='utf-8')",
        "from creditflow.core import plugins; plugins.load('attack', 'pgd')",
        "from creditflow.records.record import read_record; read_record(path)",
        "model.load_state_dict(state)",
    ],
)
def test_what_reads_nothing_is_no_reader(source: str) -> None:
    assert not reads(source)


#: By module that reads bytes from outside: the cases, or the tests above, that feed it.
FUZZED: dict[str, tuple[str, ...]] = {
    "compute.checkpoints": ("test_checkpoints_of_anything",),
    "core.files": ("json", "table"),
    "data.datasets.coco": ("dataset coco",),
    "data.datasets.digits": ("dataset digits",),
    "data.datasets.imagenet": ("dataset imagenet", "imagenet's kit"),
    "data.datasets.nus_wide": ("dataset nus_wide",),
    "data.datasets.stl10": ("dataset stl10",),
    "data.formats.archives": ("tar", "zip"),
    "data.formats.cifar": ("cifar batch", "cifar names"),
    "data.formats.gz": ("gzip",),
    "data.formats.idx": ("idx",),
    "data.formats.lists": ("list",),
    "data.formats.mat": ("mat",),
    "data.formats.medmnist": ("dataset pathmnist", "dataset chestmnist"),
    "data.formats.npz": ("npz", "dataset pathmnist"),
    "data.image_files": ("image",),
    "data.packing": ("packed images",),
    "data.prepared": ("prepared", "test_safetensors_of_anything"),
    "data.python_packages": ("wheel",),
    "data.sealed": ("prepared", "test_safetensors_of_anything"),
    "data.sources": ("received content",),
    "data.whole_images": ("image",),
    "instrument.command.options": ("test_settings_on_the_command_line",),
    "instrument.images": ("npz", "folder of images"),
    "models.model_files": ("TorchScript", "torch.export"),
    "models.published": ("weights",),
    "models.storage": ("test_files_of_anything", "test_json_files_with_anything_in_them"),
    "models.weights": ("any weights", "weights"),
    "populations.storage": ("test_files_of_anything", "test_json_files_with_anything_in_them"),
    "records.record": ("test_files_of_anything", "test_json_files_with_anything_in_them"),
    "records.listing": ("test_lists_of_records_of_anything",),
    "reporting.published": ("published numbers",),
    "reporting.results_page": ("claims", "test_files_of_anything"),
    "retrieval.storage": ("test_safetensors_of_anything", "test_files_of_anything"),
    "stages.command_line": ("test_settings_on_the_command_line",),
    "workflow.published_hyperparameters": ("hyper-parameters",),
    "workflow.yaml_files": ("test_files_of_anything",),
}
#: Modules that read only what this process, the system or this clone wrote.
NOT_FROM_OUTSIDE = {
    "compute.gpus": "signatures of this machine's jobs, of which 200 bytes are shown with replacement characters",
    "core.run_memory": "notes that jobs of the same run have written into its private folder",
    "reporting.opening": "the bitmap that this workflow has drawn, which is put into the report as it is",
    "data.downloads": "streams, which data.sources and models.published verify; test_waits.py has bad servers",
    "data.origin": "raw files, which are only hashed; the note is read by core.files",
    "compute.container": "the note of a container's hash, which is compared as text",
    "compute.matmul": "/proc",
    "compute.provenance": "/proc, and the library's own files, which are only hashed",
    "data.image_folders": "names and sizes of files; data.image_files reads what is in them",
    "derivatives.functions": "no file: `unpack_dual` takes a dual number of autograd apart",
    "instrument.run": "its own settings, through JSON and back; records.record reads its records",
    "core.plugins": "the library's own files, and those of installed packages",
    "core.programs": "/dev/null",
    "core.settings_docs": "the library's own files",
    "populations.memory": "/proc and /sys",
    "reporting.export": "exported files of this run, which are sealed before",
    "reporting.release": "networks of this run, whose hashes their sealed sidecars have, and the licence",
    "workflow.container": "the lock, which is only hashed, and the note of a check, which is compared as text",
    "workflow.dependence": "the library's own files",
    "workflow.failures": "logs, which are shown with replacement characters",
    "workflow.forkserver.server": "a request of the client beside it; tests/faults/test_waits.py feeds it with others",
    "workflow.generated": "the clone's own files",
    "workflow.image_plugins": "the lock, in which names are looked up",
    "workflow.locks": "a file that is locked, and not read",
}


def modules() -> dict[str, str]:
    """Returns the source of each module of the library, by its name without `creditflow.`."""
    root = ROOT / "src/creditflow"
    paths = [path for path in root.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(root).with_suffix("").parts): path.read_text(encoding="utf-8") for path in paths}


def test_no_module_that_reads_files_is_forgotten() -> None:
    """A new reader is put into `FUZZED` with a case, or into `NOT_FROM_OUTSIDE` with a reason."""
    reading = {name for name, source in modules().items() if reads(source)}
    assert reading - FUZZED.keys() - NOT_FROM_OUTSIDE.keys() == set()
    assert (FUZZED.keys() | NOT_FROM_OUTSIDE.keys()) - reading == set()
    assert FUZZED.keys() & NOT_FROM_OUTSIDE.keys() == set()
    named = {case for cases in FUZZED.values() for case in cases}
    assert {case for case in named if case not in CASES and case not in globals()} == set()


def test_no_dataset_and_no_format_is_forgotten() -> None:
    assert {name for name in CASES if name.startswith("dataset ")} == {
        f"dataset {name}" for name in plugins.names("dataset")
    }
    for module in pkgutil.iter_modules(library_formats.__path__):
        assert f"data.formats.{module.name}" in FUZZED
        loaded = importlib.import_module(f"{library_formats.__name__}.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if function.__module__ == loaded.__name__ and not name.startswith("_"):
                assert name in FED, f"{module.name}.{name} is a new function: say which case feeds it"


#: By public function of the formats: which case feeds it. None: it reads no content.
FED = {
    "read_members": "tar",
    "unpack": "zip",
    "read_splits": "dataset cifar10",
    "read_names": "cifar names",
    "decompressed": "received content",
    "read_at_most": "gzip",
    "read_idx": "idx",
    "read_mnist_like": "dataset mnist",
    "read_list": "list",
    "lists_in": None,
    "check_disjoint": None,
    "locate": None,
    "read_mat": "mat",
    "read_medmnist": "dataset pathmnist",
    "read_array": "npz",
}


@often
@given(content=st.one_of(st.binary(max_size=100), st.text(max_size=60).map(str.encode)))
def test_lists_of_records_of_anything(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "list"
        path.write_bytes(content)
        assert refused(lambda: read_listed(path))
