"""The command line: it reads options as they are printed, measures what closed forms say, and fails in one line."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from creditflow.core.errors import UserError
from creditflow.instrument.command import actions
from creditflow.instrument.command.application import run
from creditflow.instrument.command.options import bounds, normalisation, numbers, repeated
from helpers import ROOT

ISSUE = (
    "audit my_module.py:make_model --weights weights.pt --images folder/ --epsilons 0.01 0.05"
    " --reference torchvision:resnet18 --output audit/"
)

MODULE = """
import os, time
from pathlib import Path

import torch
from torch import nn


class Mirror(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, feedback):
        ctx.save_for_backward(feedback)
        return x @ weight.t()

    @staticmethod
    def backward(ctx, grad):
        return grad @ ctx.saved_tensors[0], None, None


class Dishonest(nn.Linear):
    def forward(self, x):
        return Mirror.apply(x, self.weight, self.weight.roll(1, 1))


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def dishonest():
    return nn.Sequential(nn.Flatten(), Dishonest(16, 8), nn.Tanh(), nn.Linear(8, 2))


class Waiting(nn.Sequential):
    def forward(self, x):
        if "WAIT" in os.environ and list(Path("out").glob("records/*/pgd/*/seed0.json")):
            Path("waits").touch()
            time.sleep(60)
        return super().forward(x)


def waiting():
    return Waiting(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 2))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with networks, and images whose pixels are far enough from the ends of their range."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MODULE, encoding="utf-8")
    images = np.random.default_rng(0).uniform(0.3, 0.7, (60, 1, 4, 4)).astype(np.float32)
    weight = np.random.default_rng(1).normal(size=16)
    np.savez("images.npz", images=images, labels=(images.reshape(60, 16) @ weight > 0.5 * weight.sum()).astype(int))
    return tmp_path


def asked(monkeypatch: pytest.MonkeyPatch, line: str) -> tuple[Any, ...]:
    """What a command line asks `actions` for."""
    taken: list[tuple[Any, ...]] = []
    for name in ("audit_models", "check_model", "attack_model"):
        monkeypatch.setattr(actions, name, lambda *arguments: taken.append(arguments))
    run(shlex.split(line))
    (arguments,) = taken
    return arguments


def test_the_command_of_the_issue_is_read_as_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference, images, epsilons, settings = asked(monkeypatch, ISSUE)
    assert (model.source, model.weights, model.name) == ("my_module.py:make_model", Path("weights.pt"), "make_model")
    assert reference.source == "torchvision:resnet18" and reference.weights is None
    assert reference.trained().source == "torchvision:resnet18@DEFAULT" and model.trained() is model
    assert (images.source, images.bounds, images.count) == ("folder/", (0.0, 1.0), 1000)
    assert epsilons == [0.01, 0.05]
    assert (settings.output, settings.budget, settings.margin) == (Path("audit"), "default", 5.0)


@pytest.mark.parametrize(
    "spelled",
    ["0.01 8/255", "0.01,8/255", "'0.01, 8/255'", "0.01 --epsilons 8/255", "1e-2 8/255", ".01 --epsilons=8/255"],
)
def test_several_epsilons_in_every_spelling(monkeypatch: pytest.MonkeyPatch, spelled: str) -> None:
    for line in (f"audit m:f --epsilons {spelled} --images x", f"audit --images x --epsilon {spelled} m:f"):
        assert asked(monkeypatch, line)[3] == [0.01, 8 / 255]


def test_normalisation_and_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "audit m:f --images x --epsilons 1 --bounds -1 255 --mean 0.4 0.5 0.6 --std 1,2,3"
    line += " --reference torchvision:vgg11:5"
    model, reference, images, _, _ = asked(monkeypatch, line)
    assert model.normalisation == reference.normalisation == {"mean": [0.4, 0.5, 0.6], "std": [1.0, 2.0, 3.0]}
    assert images.bounds == (-1.0, 255.0)
    assert reference.trained() is reference  # it has as many outputs as are asked for, and no published weights
    published = asked(monkeypatch, "attack torchvision:vgg11 --images x --epsilons 1 --mean 0 --std 1")[0]
    assert published.normalisation and published.trained().normalisation is None  # they bring their own


def test_numbers_end_where_something_else_begins() -> None:
    line = ["--epsilons", "0.1", "8/255", "m.py:f", "--mean", "-1", "2", "--size", "4", "--", "--std", "1", "2"]
    spelled = ["--epsilons", "0.1", "--epsilons", "8/255", "m.py:f", "--mean", "-1", "--mean", "2", "--size", "4"]
    assert repeated(line) == [*spelled, "--", "--std", "1", "2"]
    assert numbers(["1/4,.5", "2e0"], "--x") == [0.25, 0.5, 2.0]
    assert bounds(None) == (0.0, 1.0) and normalisation(None, []) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nothing", "No such command 'nothing'; `creditflow --help` lists what there is"),
        ("audit", "Missing argument 'MODEL'; `creditflow audit --help` lists what there is"),
        ("audit m:f --images x", "Missing option '--epsilons'"),
        ("audit m:f --images x --epsilons", "Option '--epsilons' requires an argument"),
        ("audit m:f --images x --epsilons 0.1 abc:f", "unexpected extra argument"),
        ("audit m:f --images x --epsilons abc", "--epsilons: 'abc' is neither a number nor a fraction such as 8/255"),
        ("audit m:f --images x --epsilons 1/0", "--epsilons: '1/0' is neither"),
        ("audit m:f --images x --epsilons 1e999", "--epsilons: '1e999' is neither"),
        ("audit m:f --images x --epsilons 1 --bounds 1 0", "--bounds 1 0: give the lowest and the highest value"),
        ("audit m:f --images x --epsilons 1 --mean 0.5", "--mean and --std belong together; give both or none"),
        ("audit m:f --images x --epsilons 1 --mean 1 --std 0", "--std must have a positive number for each number"),
        ("audit m:f --images x --epsilons 1 --reference-weights w", "no reference; name it by --reference"),
        ("audit m:f --images x --epsilons 1 --budget huge", "'huge'"),
        ("attack m:f --images x --epsilons 1 --attack pgt", "unknown attack 'pgt'; did you mean 'pgd'"),
        ("attack m:f --images x --epsilons 1 --settings [1]", "is not a JSON object such as"),
        ("check-gradient m:f --images x --seed -1", "--seed': Input should be greater than or equal to 0"),
        ("check-gradient mine.py --images x", "names a file, but no function in it; write mine.py:function"),
        ("check-gradient mine.py:linear --images absent", "is neither a folder, nor an .npz file, nor dataset:<name>"),
        ("attack mine.py:linear --images images.npz --epsilons 0.1 --settings '{\"stepz\": 3}'", "stepz"),
        ("attack mine.py:linear --images images.npz --epsilons 0.2 0.1", "epsilons must rise"),
        ("attack torchvision:vgg11@V --bounds 0 2 --images images.npz --epsilons 1", "for pixels from 0 to 1; leave"),
    ],
)
def test_mistakes_are_one_line(folder: Path, line: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        run(shlex.split(line))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_an_attack_leaves_the_accuracy_that_a_linear_network_must_have(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {"1.weight": torch.randn(2, 16, generator=generator), "1.bias": torch.zeros(2)}
    torch.save(state, "weights.pt")
    arrays = np.load("images.npz")
    images, labels = torch.from_numpy(arrays["images"]).flatten(1), torch.from_numpy(arrays["labels"])
    between = (state["1.weight"][1] - state["1.weight"][0]) * (2 * labels - 1)[:, None]
    margin = (between * (images - 0.5)).sum(1)  # mean 0.5 and std 1 are stated
    expected = [float((margin > size * between.abs().sum(1)).double().mean()) for size in (0, 0.01, 0.05)]
    assert len(set(expected)) == 3
    line = "attack mine.py:linear --weights weights.pt --attack fgsm --mean 0.5 --std 1"
    run(shlex.split(f"{line} --images images.npz --epsilons 0.01 0.05 --output adversarial.npz"))
    shares = [float(share) / 100 for share in re.findall(r"([\d.]+)%", capsys.readouterr().out)]
    assert shares == pytest.approx(expected, abs=1e-3)
    written = np.load("adversarial.npz")
    assert np.abs(written["adversarial"] - written["images"]).max() <= 0.05 + 1e-6
    for size, predictions, accuracy in zip((0.01, 0.05), written["predictions"], expected[1:], strict=True):
        assert (predictions == arrays["labels"]).mean() == pytest.approx(accuracy), size

    np.savez("wide.npz", images=arrays["images"] * 255, labels=arrays["labels"])
    line = line.replace("--mean 0.5 --std 1", "--mean 127.5 --std 255 --bounds 0 255")
    run(shlex.split(f"{line} --images wide.npz --epsilons 2.55 12.75"))
    shares = [float(share) / 100 for share in re.findall(r"([\d.]+)%", capsys.readouterr().out)]
    assert shares == pytest.approx(expected, abs=1e-3)


def test_an_attack_says_what_its_accuracy_is_worth(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "--images images.npz --epsilons 0.1 --attack pgd"
    run(shlex.split(f"attack mine.py:linear {line}"))
    assert "warning" not in capsys.readouterr().err
    run(shlex.split(f"attack mine.py:dishonest {line} --gradient own"))
    assert "is not the derivative of what the model computes" in (said := capsys.readouterr().err)
    assert "Take --gradient exact." in said and "guard" not in said
    Path("none.py").write_text(
        "import torch\nfrom mine import linear\n"
        "class Detached(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__(); self.body = linear()\n"
        "    def forward(self, x):\n        return self.body(x).detach()\n",
        encoding="utf-8",
    )
    run(shlex.split(f"attack none.py:Detached {line}"))
    said = capsys.readouterr().err
    assert "guard: zero gradients" in said and "creditflow audit tries others too" in said


def test_a_dishonest_layer_is_named_and_a_report_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(shlex.split("check-gradient mine.py:linear --images images.npz"))
    assert capsys.readouterr().out.startswith("honest: ")
    run(shlex.split("check-gradient mine.py:dishonest --images images.npz --mean 0.5 --std 0.2 --output report.json"))
    assert capsys.readouterr().out.startswith("surrogate: ")
    report = json.loads(Path("report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "surrogate" and report["culprits"] == ["1"]


def test_an_audit_of_two_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "audit mine.py:dishonest --images images.npz --epsilons 0.01 0.05 --budget quick --count 40"
    run(shlex.split(f"{line} --reference mine:linear --output out/"))
    said = capsys.readouterr().out
    assert "The gradient of dishonest is a surrogate" in said and "report: out/report.html" in said
    assert Path("out/report.html").stat().st_size > 10_000
    table = Path("out/table.csv").read_text(encoding="utf-8")
    assert table.count("\n") == 5 and "reference" in table


def started(*arguments: str, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    code = "from creditflow.instrument.command import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def test_versions_rules_and_help_load_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from creditflow.instrument.command.application import run\n"
        "run(['version']); run(['rules']); run(['attacks']); run(['audit', '--help']); run([])\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'matplotlib', 'snakemake', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    lines = done.stdout.splitlines()
    assert re.match(r"creditflow [\d.]+ \(Python [\d.]+, torch [\w.+]+\)$", lines[0])
    assert lines[-1] == "[]"
    assert all(text in done.stdout for text in ("frsf ", "square ", "--reference-weights", "check-gradient "))


def test_a_mistake_ends_with_exit_code_2_and_one_line(tmp_path: Path) -> None:
    process = started("audit", "m:f", "--epsilons", "x", "--images", "y", folder=tmp_path)
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "")
    assert complained == "error: --epsilons: 'x' is neither a number nor a fraction such as 8/255\n"


@pytest.mark.slow
def test_an_audit_that_is_interrupted_says_how_to_go_on_and_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = shlex.split(
        "audit mine.py:waiting --images images.npz --epsilons 0.01 0.05 --budget quick --output out"
    )
    process = started(*arguments, folder=folder, WAIT="1")
    deadline = time.monotonic() + 120
    while not (folder / "waits").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complained = process.communicate(timeout=60)
    assert process.returncode == 130, complained
    assert complained.splitlines()[-1] == "interrupted; out keeps what is done: run the same command again to go on"
    assert not (folder / "out/report.html").exists()
    (record,) = folder.glob("out/records/*/pgd/*/seed0.json")
    written = record.stat().st_mtime_ns
    run(arguments)
    assert "report: out/report.html" in capsys.readouterr().out
    assert record.stat().st_mtime_ns == written
