"""Training steps of `gpu.py`: each feedback rule beside backpropagation, in several ways to compute, and BioTorch."""

import gc
import importlib
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from _common import synchronised
from _gpu_run import Options, Send, SkippedError, measure
from torch import nn
from torch.nn import functional as F

import training
from creditflow.compute.device import use_device
from creditflow.core import plugins
from creditflow.feedback.apply import feedback_layers
from creditflow.feedback.proof import prove

#: Network -> shape of the images and batch size.
LARGE = {"resnet18": ((3, 224, 224), 128), "vgg16": ((3, 224, 224), 32)}
SMALL = {"lenet5": ((1, 28, 28), 4), "small_cnn": ((1, 28, 28), 2)}
#: The rules that stand for all where steps are computed in other ways.
SOME = ("frsf", "fa")
PLAIN = "float32"


@dataclass(frozen=True)
class Way:
    """How a step is computed: with the settings of a stage but for what is said here."""

    channels_last: bool = False
    bfloat16: bool = False
    free: bool = False  # cuDNN may choose kernels by their time, and they need not be deterministic
    tf32: bool = True  # convolutions may round factors to TF32, as PyTorch lets them
    compiled: bool = False


WAYS = {
    PLAIN: Way(),
    "float32 without TF32": Way(tf32=False),
    "channels last": Way(channels_last=True),
    "bf16": Way(bfloat16=True),
    "bf16, channels last": Way(bfloat16=True, channels_last=True),
    "any kernel": Way(free=True),
    "bf16, channels last, any kernel": Way(bfloat16=True, channels_last=True, free=True),
    "compiled": Way(compiled=True),
}


@dataclass(frozen=True)
class Case:
    """A network under a rule (`whose`: "ours" or "biotorch"), and the name of the way to compute."""

    network: str
    rule: str
    whose: str = "ours"
    way: str = PLAIN


class Steps:
    """A network in training on the device."""

    def __init__(self, case: Case, options: Options) -> None:
        self._device, self._way = torch.device(options.device), WAYS[case.way]
        self._n = 1 if options.small else 5
        shape, batch = sizes(options)[case.network]
        before = allocated(self._device)
        torch.manual_seed(0)
        view = training.ruled(case.network, case.rule, case.whose).to(self._device).train()
        layout = torch.channels_last if self._way.channels_last else torch.contiguous_format
        view.to(memory_format=layout)  # type: ignore[call-overload]
        self._images = torch.rand(batch, *shape).to(self._device).contiguous(memory_format=layout)
        self._labels = torch.randint(0, 10, (batch,)).to(self._device)
        parameters = [parameter for parameter in view.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(parameters, lr=1e-5, weight_decay=5e-4, fused=True)
        self._view = compiled(view, self._images[:2], options) if self._way.compiled else view
        self.seconds()  # it makes what the optimiser keeps
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self.seconds()
        self.mib = (peak(self._device) - before) / 2**20 if self._device.type == "cuda" else None

    def seconds(self) -> float:
        """Makes training steps and returns the time of one, in seconds."""
        with kernels(self._device, self._way):
            start = synchronised(self._device)
            for _ in range(self._n):
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self._way.bfloat16):
                    outputs = self._view(self._images)
                F.cross_entropy(outputs.float(), self._labels).backward()
                self._optimizer.step()
                self._optimizer.zero_grad(set_to_none=True)
            return (synchronised(self._device) - start) / self._n


def sizes(options: Options) -> dict[str, tuple[tuple[int, int, int], int]]:
    """Returns the networks, with the shape of their images and the batch size."""
    return SMALL if options.small else LARGE


def allocated(device: torch.device) -> int:
    """Returns the bytes of all tensors on a GPU; 0 for the CPU."""
    if device.type == "cpu":
        return 0
    gc.collect()
    torch.cuda.synchronize(device)
    return torch.cuda.memory_allocated(device)


def peak(device: torch.device) -> int:
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device)


@contextmanager
def kernels(device: torch.device, way: Way) -> Iterator[None]:
    """Has a GPU compute in a way; afterwards all is as before."""
    if device.type == "cpu":
        yield
        return
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = tf32 and way.tf32
    torch.use_deterministic_algorithms(not way.free, warn_only=True)
    torch.backends.cudnn.benchmark = way.free
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def compiled(view: nn.Module, images: torch.Tensor, options: Options) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the view as the training loop compiles it; with small sizes its graph only, without kernels."""
    if options.device != "cpu" and find_spec("triton") is None:
        raise SkippedError("torch.compile needs triton, which is not installed")
    if not options.small and shutil.which("gcc") is None and shutil.which("cc") is None:
        raise SkippedError("torch.compile needs a C compiler, and there is none")
    prove(view, images)
    for _, layer in feedback_layers(view):
        layer.forward = torch.compiler.disable(layer.forward)  # type: ignore[method-assign]
    result: Callable[[torch.Tensor], torch.Tensor] = torch.compile(
        view, backend="eager" if options.small else "inductor"
    )
    return result


def compared(ours: Steps, base: Steps, options: Options) -> dict[str, Any]:
    """Returns time and memory of one network's step and their ratios to another's; both take turns in each round."""
    times: dict[str, list[float]] = {"ours": [], "base": []}
    for index in range(options.rounds):
        for key in times if index % 2 else reversed(times):
            times[key].append({"ours": ours, "base": base}[key].seconds())
    ratios = [mine / other for mine, other in zip(times["ours"], times["base"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    numbers = {"ms": 1e3 * statistics.median(times["ours"]), "ratio": middle, "low": low, "high": high}
    numbers |= {"base_ms": 1e3 * statistics.median(times["base"]), "mib": ours.mib}
    return numbers | {"mib_ratio": None if ours.mib is None or not base.mib else ours.mib / base.mib}


class Networks:
    """Networks in training. What several rows compare with, and backpropagation, is kept for the next row."""

    def __init__(self, options: Options) -> None:
        use_device(options.device, options.threads)
        self._options = options
        self._kept: dict[Case, Steps] = {}

    def _shared(self, case: Case) -> Steps:
        if case not in self._kept:
            related = {PLAIN, case.way}
            for old in [old for old in self._kept if old.network != case.network or old.way not in related]:
                del self._kept[old]
            self._kept[case] = Steps(case, self._options)
        return self._kept[case]

    def row(self, case: Case, base: Case) -> dict[str, Any]:
        """Returns the numbers of a case beside those of another, its base."""
        reference = self._shared(base)
        steps = self._shared(case) if case.rule == "bp" else Steps(case, self._options)
        shape, batch = sizes(self._options)[case.network]
        whose = "BioTorch's " if case.whose == "biotorch" else ""
        against = "our " if case.whose != base.whose else ""
        way = "" if base.way == case.way else f", {base.way}"
        words = {
            "network": f"{case.network}, {batch} images of {shape[1]} x {shape[2]}",
            "rule": whose + case.rule,
            "way": case.way,
            "against": against + base.rule + way,
        }
        return words | compared(steps, reference, self._options)

    def plan(self, cases: list[tuple[Case, Case]]) -> dict[str, Callable[[], dict[str, Any]]]:
        """Returns what measures each case beside its base, by its name."""
        return {named(case): partial(self.row, case, base) for case, base in cases}


def named(case: Case) -> str:
    whose = " of BioTorch" if case.whose == "biotorch" else ""
    return f"{case.network}, {case.rule}{whose}, {case.way}"


def rules(options: Options, send: Send) -> None:
    """Compares each rule with backpropagation, and BioTorch's frSF with ours where BioTorch is installed."""
    names, networks = [name for name in plugins.names("rule") if name != "bp"], Networks(options)
    plan: dict[str, Callable[[], dict[str, Any]]] = {}
    for network in sizes(options):
        plan |= networks.plan([(Case(network, rule), Case(network, "bp")) for rule in names])
        theirs = Case(network, "frsf", "biotorch")
        if find_spec("biotorch") is None:
            plan[named(theirs)] = _without_biotorch
        else:
            plan |= networks.plan([(theirs, Case(network, "frsf"))])
    measure(plan, send)


def _without_biotorch() -> dict[str, Any]:
    raise SkippedError("biotorch is not installed")


def ways(options: Options, send: Send) -> None:
    """Compares ways to compute: backpropagation with itself in float32, rules with backpropagation in the same way."""
    first, second = sizes(options)
    chosen = [(first, way) for way in WAYS if way not in (PLAIN, "compiled")]
    chosen += [(second, "channels last"), (second, "bf16"), (second, "any kernel"), (first, "compiled")]
    cases = []
    for network, way in chosen:
        cases.append((Case(network, "bp", way=way), Case(network, "bp")))
        some = SOME[:1] if options.small else SOME
        cases += [(Case(network, rule, way=way), Case(network, "bp", way=way)) for rule in some]
    # Each network that is compiled has the code of its modules compiled anew.
    importlib.import_module("torch._dynamo").config.cache_size_limit = 64
    measure(Networks(options).plan(cases), send)
