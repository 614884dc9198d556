"""What provokes the promised refusals of the audit of anybody's models and of its commands; see test_promises.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from creditflow.core.errors import UserError
from creditflow.derivatives import steadiness
from creditflow.instrument import batching, budgets, inputs, subjects
from creditflow.instrument.audit import audit
from creditflow.instrument.command import application, options
from creditflow.instrument.command.requests import ModelRequest
from creditflow.instrument.images import load_images
from creditflow.instrument.result import AuditResult
from creditflow.instrument.subjects import Subject
from creditflow.instrument.wrapped import UnitRange, read_preprocessing
from faults.promised_data import Promised, Provoke, classes, written

X = torch.linspace(0, 1, 3 * 16).reshape(3, 1, 4, 4)
LABELS = torch.tensor([0, 1, 1])
INPUTS = inputs.Inputs(X, LABELS)
CPU = torch.device("cpu")
UNIT = (0.0, 1.0)


class Outputs(nn.Module):
    """A model that returns whatever it is told to, for n images; it fails with more than `most`."""

    def __init__(self, *sizes: int, value: float = 1.0, most: int = 100) -> None:
        super().__init__()
        self.sizes, self.value, self.most = sizes, value, most

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise RuntimeError("it takes a few images at a time only")
        return torch.full((len(x), *self.sizes), self.value) + 0 * x.sum()


class Pairs(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, x


def network(n_classes: int = 2) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, n_classes)).eval()


def subject(model: nn.Module) -> Subject:
    return Subject("mine", 0, UnitRange(model, UNIT, None), "0", "Net")


def audited(models: Any = None, images: Any = X, labels: Any = LABELS, **change: Any) -> Provoke:
    """Audits with something that is not as described, before anything is measured."""
    given = {"epsilons": [0.1], "progress": False} | change
    return lambda f: audit(network() if models is None else models, images, labels, **given)


def clean(model: nn.Module) -> Provoke:
    return lambda f: subjects.clean_logits(subject(model), INPUTS, CPU, 3)


def first(model: nn.Module) -> Provoke:
    return lambda f: subjects.check_first(subject(model), INPUTS, CPU)


class Counts(nn.Module):
    """A model whose outputs grow from call to call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.calls * x.flatten(1)[:, :2]


class TellsTheJudge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (-1 if torch.is_grad_enabled() else 1) * x.flatten(1)[:, :2]


PROBE = steadiness.Probe("model 'mine'", X, 0.1, 0)


def asked(model: nn.Module) -> Provoke:
    return lambda f: steadiness.first_answers(model, PROBE, None)


def asked_again(f: Path) -> object:
    """Asks a network that has been trained since."""
    asked_first = steadiness.first_answers(network(), PROBE, None)
    return steadiness.check_answers(network(), PROBE, asked_first, "the end of the audit")


def read(images: Any, labels: Any = LABELS, bounds: tuple[float, float] = UNIT) -> Provoke:
    return lambda f: inputs.read_inputs(images, labels, bounds)


def without_memory(batch_size: int) -> object:
    raise MemoryError("out of memory")


def folder_of(*images: tuple[str, tuple[int, int]]) -> Provoke:
    """Loads a folder with a class of images of these modes and sizes, and an empty class if there are none."""

    def provoke(folder: Path) -> object:
        classes(folder, "a", "b")
        for number, (mode, size) in enumerate(images):
            for name in ("a", "b"):
                Image.new(mode, size).save(folder / name / f"{number}.png")
        return load_images(str(folder))

    return provoke


def arrays(**given: Any) -> Provoke:
    def provoke(folder: Path) -> object:
        np.savez(folder / "x.npz", **given)
        return load_images(str(folder / "x.npz"))

    return provoke


def a_result() -> AuditResult:
    return AuditResult(pd.DataFrame(), pd.DataFrame(), {}, [], "mine", {})


def command(*arguments: str) -> Provoke:
    return lambda f: application.run(arguments)


BYTES = np.zeros((3, 4, 4), np.uint8)

INSTRUMENT: dict[str, Promised] = {
    "instrument.audit.audit": (
        UserError,
        [
            (audited({}), "models must be a torch.nn.Module, or a dict"),
            (audited({"a": network(), "b": network()}), "Say reference=, one of: a, b"),
            (audited({"a": network(), "reference": network(3)}), "compare models of the same classes"),
            (audited(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 2))), "call .eval()"),
            (audited(labels=None), "give the class number of each image"),
            (audited(images=X[:0]), "give at least one"),
            (audited(images=X - 2), "lie outside the bounds"),
            (audited(labels=LABELS + 5), "labels go to 1"),
            (audited(epsilons=[]), "epsilons must be finite numbers"),
            (audited(epsilons=[8]), "larger than the range of pixels"),
            (audited(norm="l2"), "use 'linf'"),
            (audited(budget="cheap"), "unknown budget 'cheap'"),
            (audited(gradients=["exakt"]), "did you mean 'exact'"),
            (audited(bounds=(1, 0)), "such as (0, 1) or (0, 255)"),
            (audited(preprocessing={"mean": [0.5]}), "or {'mean': [...], 'std': [...]}"),
            (audited(device="cdua"), "use cpu or cuda"),
            (audited(batch_size=0), "at least 1, not 0"),
            (audited(surrogates={"a/b": network()}), "can't be the name of a model"),
            (lambda f: audited(save=written(f / "x"))(f), "is a file; name a folder"),
        ],
    ),
    "instrument.batching.with_less_memory": (
        UserError,
        [(lambda f: batching.with_less_memory(without_memory, 4), "memory does not suffice for one image")],
    ),
    "instrument.budgets.get_budget": (UserError, [(lambda f: budgets.get_budget("quikc"), "did you mean 'quick'")]),
    "instrument.budgets.check_gradients": (
        UserError,
        [
            (lambda f: budgets.check_gradients(["feedback"]), "unknown gradient 'feedback'"),
            (lambda f: budgets.check_gradients([]), "name at least one gradient"),
        ],
    ),
    "instrument.images.load_images": (
        UserError,
        [
            (lambda f: load_images(str(f / "absent")), "name one of these"),
            (lambda f: load_images(str(f / "absent.npz")), "name an existing one"),
            (lambda f: load_images(f"dataset:{f / 'absent'}"), "name another"),
            (lambda f: load_images("dataset:digitz"), "did you mean 'digits'"),
            (lambda f: load_images(str(written(f / "x.npz"))), "write it again"),
            (lambda f: load_images(str(f)), "has no folder"),
            (folder_of(), "add some, or take away this class"),
            (folder_of(("RGB", (4, 4)), ("RGB", (5, 4))), "scale them to one size by --size"),
            (lambda f: (classes(f, "a"), written(f / "a/x.png"), load_images(str(f))), "cannot be read as an image"),
            (arrays(images=BYTES), "write it with numpy.savez"),
            (arrays(images=BYTES, labels=np.zeros(2, int)), "one for each image"),
            (arrays(images=BYTES[:0], labels=np.zeros(0, int)), "write some into it"),
            (arrays(images=BYTES.astype(int), labels=np.zeros(3, int)), "store them as uint8"),
            (arrays(images=BYTES + 2.0, labels=np.zeros(3, int)), "state their range by --bounds"),
            (arrays(images=BYTES.reshape(-1, 4), labels=np.zeros(12, int)), "turn them to one of these"),
        ],
    ),
    "instrument.inputs.read_inputs": (
        UserError,
        [
            (read(TensorDataset(X, LABELS)), "leave labels out"),
            (read(TensorDataset(X[:0], LABELS[:0]), None), "there is no image to attack"),
            (read([X[0]], None), "labels are missing"),
            (read("images"), "images must be a tensor, not str"),
            (read(X[0]), "images must have the shape (N, C, H, W)"),
            (read((255 * X).byte()), "give images / 255"),
            (read(X / 0), "mend or remove these images"),
            (read(3 * X), "say bounds=(low, high)"),
            (read(X, LABELS[:2]), "one class number for each of 3 images"),
            (read(X, LABELS.float()), "whole numbers, not float32"),
            (read(X, LABELS - 1), "classes are numbered from 0"),
        ],
    ),
    "instrument.inputs.check_bounds": (
        UserError,
        [
            (lambda f: inputs.check_bounds(3), "the lowest and the highest value of a pixel, not 3"),
            (lambda f: inputs.check_bounds((0, float("nan"))), "such as (0, 1) or (0, 255)"),
        ],
    ),
    "instrument.inputs.check_sizes": (
        UserError,
        [
            (lambda f: inputs.check_sizes(0.1, UNIT), "such as [0.1]"),  # type: ignore[arg-type]
            (lambda f: inputs.check_sizes(["much"], UNIT), "a list of numbers"),  # type: ignore[list-item]
            (lambda f: inputs.check_sizes([0.2, 0.1], UNIT), "epsilons must rise"),
            (lambda f: inputs.check_sizes([8.0], UNIT), "say 8/255"),
        ],
    ),
    "instrument.result.AuditResult.save": (
        UserError,
        [(lambda f: a_result().save(written(f / "x")), "is a file; name a folder")],
    ),
    "instrument.subjects.read_models": (
        UserError,
        [
            (lambda f: subjects.read_models(3), "models must be a torch.nn.Module, or a dict"),
            (lambda f: subjects.read_models({"": network()}), "use letters, digits"),
            (lambda f: subjects.read_models({"matched": network()}), "can't be the name of a model"),
            (lambda f: subjects.read_models({"a": []}), "a list of them, one for each seed"),
            (
                lambda f: subjects.read_models({"surrogate a": network()}),
                "names that begin with 'surrogate ' are taken",
            ),
        ],
    ),
    "instrument.subjects.reference_of": (
        UserError,
        [
            (lambda f: subjects.reference_of({"a": [network()]}, "b"), "unknown reference 'b'"),
            (lambda f: subjects.reference_of({"a": [network()], "b": [network()]}, None), "Say reference="),
            (
                lambda f: subjects.reference_of({"a": [network()] * 2, "reference": [network()]}, None),
                "give the reference as many",
            ),
        ],
    ),
    "instrument.subjects.device_of": (
        UserError,
        [
            (lambda f: subjects.device_of({"a": [network()]}, "cdua"), "use cpu or cuda"),
            (lambda f: subjects.device_of({"a": [network()]}, "meta"), "model.to('meta'), or device='cpu'"),
            (lambda f: subjects.device_of({"a": [network(), network().to("meta")]}, None), "move it"),
        ],
    ),
    "instrument.subjects.check_modes": (
        UserError,
        [(lambda f: subjects.check_modes({"a": [nn.Sequential(nn.Dropout())]}), "call .eval()")],
    ),
    "instrument.subjects.check_first": (
        UserError,
        [
            (first(nn.Linear(7, 2)), "check sizes and preprocessing"),
            (first(Pairs()), "wrap it in a module that returns the logits"),
            (first(Outputs(2, 2)), "logits have the shape (N, classes)"),
            (first(Outputs(1)), "give one for each class"),
            (first(Outputs()), "logits have the shape (N, classes)"),
        ],
    ),
    "instrument.subjects.check_differ": (
        UserError,
        [
            (
                lambda f: subjects.check_differ([subject(network())] * 2, [X] * 2),
                "networks 0 and 1 of model 'mine' are copies",
            )
        ],
    ),
    "derivatives.steadiness.first_answers": (
        UserError,
        [
            (asked(Counts()), "they depend on what it has seen before"),
            (asked(Outputs(2, most=2)), "if it keeps a state between calls, reset it in forward"),
            (asked(TellsTheJudge()), "computes something else inside torch.no_grad()"),
        ],
    ),
    "derivatives.steadiness.called": (
        UserError,
        [(lambda f: steadiness.called(Outputs(2, most=2), X, "model 'mine'"), "if memory ran out, lower batch_size")],
    ),
    "derivatives.steadiness.check_answers": (
        UserError,
        [(asked_again, "gives other outputs at the end of the audit")],
    ),
    "instrument.subjects.clean_logits": (
        UserError,
        [
            (clean(Outputs(2, most=2)), "if it keeps a state between calls, reset it in forward"),
            (clean(Outputs(2, value=float("nan"))), "model 'mine': the model's outputs are not finite"),
            (clean(Outputs(2, value=0.5)), "remove its softmax"),
        ],
    ),
    "instrument.subjects.gradient_report": (
        UserError,
        [
            (
                lambda f: subjects.gradient_report([subject(Outputs(2, value=float("inf")))], INPUTS, CPU, 0),
                "model 'mine': the model returns NaN or infinity",
            )
        ],
    ),
    "instrument.wrapped.read_preprocessing": (
        UserError,
        [
            (lambda f: read_preprocessing(3, 1, CPU), "must be a function of images"),  # type: ignore[arg-type]
            (lambda f: read_preprocessing({"mean": "x", "std": 1}, 1, CPU), "mean must be a list of numbers"),
            (lambda f: read_preprocessing({"mean": [0, 0], "std": [1]}, 3, CPU), "3 numbers, one for each channel"),
            (lambda f: read_preprocessing({"mean": [0], "std": [0]}, 1, CPU), "std must be above 0"),
        ],
    ),
    "instrument.command.application.run": (
        UserError,
        [
            (command("adit"), "`creditflow --help` lists what there is"),
            (command("audit", "model.py:make"), "`creditflow audit --help` lists what there is"),
            (command("attack", "m.py:make", "--images", "x", "--epsilons", "0.1", "--attack", "pgdd"), "did you mean"),
            (
                command("audit", "m.py:make", "--images", "x", "--epsilons", "0.1", "--reference-mean", "0"),
                "--reference",
            ),
        ],
    ),
    "instrument.command.options.numbers": (
        UserError,
        [
            (lambda f: options.numbers([], "--mean"), "give numbers, such as --mean 0.01 8/255"),
            (lambda f: options.numbers(["8/0"], "--mean"), "neither a number nor a fraction"),
            (lambda f: options.numbers(["nan"], "--mean"), "neither a number nor a fraction"),
        ],
    ),
    "instrument.command.options.bounds": (
        UserError,
        [
            (lambda f: options.bounds(["1", "0"]), "give the lowest and the highest value of a pixel"),
            (lambda f: options.bounds(["1"]), "give the lowest and the highest value of a pixel"),
        ],
    ),
    "instrument.command.options.normalisation": (
        UserError,
        [
            (lambda f: options.normalisation(["0.5"], None), "give both or none"),
            (lambda f: options.normalisation(["0.5"], ["0"]), "a positive number for each number of --mean"),
        ],
    ),
    "instrument.command.options.json_object": (
        UserError,
        [
            (lambda f: options.json_object("{", "--settings"), "is not JSON"),
            (lambda f: options.json_object("3", "--settings"), "is not a JSON object such as"),
        ],
    ),
    "instrument.command.requests.ModelRequest.parsed": (
        UserError,
        [
            (
                lambda f: ModelRequest("resnet", None, None, None).parsed,
                "'resnet' names no model; write file.py:function",
            )
        ],
    ),
}
