"""The audit of anybody's models: what their gradients are worth, and their accuracy under the strongest attacks."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from creditflow.compute.device import CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACE
from creditflow.compute.provenance import provenance_of
from creditflow.core.errors import UserError
from creditflow.core.files import as_path, only_one_writer
from creditflow.derivatives.steadiness import untouched
from creditflow.instrument import budgets, judging, run, subjects
from creditflow.instrument.batching import fitting_batch
from creditflow.instrument.inputs import Inputs, check_bounds, check_sizes, read_inputs
from creditflow.instrument.measuring import Measured, measure
from creditflow.instrument.result import AuditResult
from creditflow.instrument.subjects import Subject
from creditflow.instrument.wrapped import Preprocessing, preprocessing_facts, read_preprocessing


@torch.inference_mode(False)
@torch.enable_grad()
def audit(
    models: nn.Module | Mapping[str, nn.Module | Sequence[nn.Module]],
    images: Tensor | Dataset[Any] | DataLoader[Any],
    labels: Tensor | None = None,
    *,
    epsilons: Sequence[float],
    reference: str | None = None,
    norm: Literal["linf"] = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
    preprocessing: Preprocessing = None,
    gradients: Sequence[str] = ("exact", "own"),
    margin: float = 5.0,
    budget: Literal["quick", "default", "strong"] = "default",
    surrogates: Mapping[str, nn.Module] | None = None,
    save: str | Path | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> AuditResult:
    """Audits the adversarial robustness of classifiers.

    First the gradient of each model is checked (`check_gradient`). Then PGD attacks each model as a paper would,
    through the model's own gradient, and a cascade of strong attacks looks for the worst case: through the exact
    gradient, without gradients, and by transfer from the other models. With two models or more, each is compared with
    the reference. docs/audit.md explains the verdicts. The same call gives the same bytes on the same machine, but for
    run times.

    Args:
        models: a model, or models by name; several networks of one model, trained with several seeds, as a list. A
            model maps images (N, C, H, W) to logits (N, K). It must be in eval mode, and it is left as it was.
        images: float (N, C, H, W) within `bounds`; or a Dataset or a DataLoader of pairs of image and label.
        labels: int (N,), numbers of the true classes; None for a Dataset or a DataLoader.
        epsilons: sizes of the perturbation that rise, in the units of `bounds`.
        reference: the model that others are compared with; the one called "reference" if there is one.
        norm: the norm of the perturbation; only "linf", the largest change of a pixel.
        bounds: the lowest and the highest value that a pixel can have.
        preprocessing: what happens to images within `bounds` before a model sees them, for all models: a function, or
            {"mean": [...], "std": [...]} for each channel; attackers differentiate through it.
        gradients: what attackers may follow: "exact", the derivative; "own", what the backward pass gives. No
            attack runs twice on an honest model, as both are the same. One without a useful
            gradient is attacked through its own.
        margin: difference of two models, in percentage points, that is too small to matter.
        budget: what is spent: "quick" for a first look; "default"; "strong", the budgets of the attacks' authors.
        surrogates: further models, by name, that images are transferred from; they are not audited.
        save: a folder for the result. Records are written as they are made, and those of an audit that was stopped are
            taken again if nothing has changed.
        device: where the models are; they are not moved.
        batch_size: number of images that are attacked at once; found by itself if None.
        seed: seed of the attacks.
        progress: whether a progress bar is shown.

    Returns:
        The result; `print` it, or take `.table`, `.figure()` and `.save(folder)`.

    Raises:
        UserError: if something is not as described, in one line that says what to do.
    """
    if norm != "linf":
        raise UserError(f"norm {norm!r} cannot be audited; use 'linf'")
    tier, allowed = budgets.get_budget(budget), budgets.check_gradients(gradients)
    range_of_pixels = check_bounds(bounds)
    sizes = check_sizes(epsilons, range_of_pixels)
    networks, extra = subjects.read_models(models), _surrogates(surrogates)
    chosen = subjects.reference_of(networks, reference)
    subjects.check_modes({**networks, **extra})
    place = subjects.device_of({**networks, **extra}, device)
    inputs = read_inputs(images, labels, range_of_pixels)
    preprocess = read_preprocessing(preprocessing, inputs.images.shape[1], place)
    audited = subjects.as_subjects(networks, range_of_pixels, preprocess)
    others = subjects.as_subjects(extra, range_of_pixels, preprocess)
    everybody = [member for members in (*audited.values(), *others.values()) for member in members]
    copies = {id(member): untouched(member.network) for members in audited.values() for member in members}
    n_classes = _agreed_classes(everybody, inputs, place)
    size = _batch_size(batch_size, everybody, inputs, place)
    with _folder(save) as folder, deterministic(place):
        stated = preprocessing_facts(preprocess)
        fixed = batch_size is not None
        plan = run.Plan(folder, inputs, sizes, range_of_pixels, stated, tier, place, size, fixed, seed)
        measured = measure(plan, audited, others, allowed, n_classes, progress, copies)
        result = _result(plan, measured, chosen, list(audited), margin)
        if save is not None:
            result.save(folder)
    return result


def _result(plan: run.Plan, measured: Measured, reference: str, names: Sequence[str], margin: float) -> AuditResult:
    verdicts = {name: measured.reports[name].verdict for name in names}
    question = judging.Question(reference, plan.epsilons, margin, verdicts, measured.has_sources)
    facts = {
        "budget": plan.budget.name,
        "epsilons": list(plan.epsilons),
        "bounds": list(plan.bounds),
        "preprocessing": plan.preprocessing,
        "images": len(plan.inputs.labels),
        "data": plan.inputs.identity(),
        "models": measured.models,
        "reference": reference,
        "margin": margin,
        "transfer": measured.has_sources,
        "batch_size": plan.batch_size,
        "seed": plan.seed,
        "gradients": {name: measured.reports[name].to_dict() for name in names},
    }
    return AuditResult(
        judging.table_of(measured.records, question),
        judging.accuracies_of(measured.records, question),
        {name: measured.reports[name] for name in names},
        measured.records,
        reference,
        facts | {"provenance": provenance_of(facts, plan.device)},
    )


def _surrogates(surrogates: Mapping[str, nn.Module] | None) -> dict[str, list[nn.Module]]:
    if surrogates is None:
        return {}
    networks = subjects.read_models(surrogates) if surrogates else {}
    return {f"{subjects.FURTHER}{name}": members[:1] for name, members in networks.items()}


def _agreed_classes(everybody: Sequence[Subject], inputs: Inputs, device: torch.device) -> int:
    """Returns the number of classes. Raises UserError for models that are no classifiers of these images."""
    numbers = {str(subject): subjects.check_first(subject, inputs, device) for subject in everybody}
    if len(set(numbers.values())) > 1:
        listed = ", ".join(f"{name}: {number}" for name, number in numbers.items())
        raise UserError(f"models have different numbers of outputs ({listed}): compare models of the same classes")
    return next(iter(numbers.values()))


def _batch_size(stated: int | None, everybody: Sequence[Subject], inputs: Inputs, device: torch.device) -> int:
    if stated is None:
        sizes = [fitting_batch(subject.network, inputs.images, device) for subject in everybody if subject.seed == 0]
        return min(sizes)
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
        raise UserError(f"batch_size must be a whole number of at least 1, not {stated!r}")
    return stated


@contextmanager
def _folder(save: str | Path | None) -> Iterator[Path]:
    """Yields the folder of the records: the user's, which no other audit may write meanwhile, or a temporary one."""
    if save is None:
        with tempfile.TemporaryDirectory(prefix="creditflow-audit-") as scratch:
            yield Path(scratch)
        return
    folder = as_path(str(save))
    if folder.exists() and not folder.is_dir():
        raise UserError(f"save: {folder} is a file; name a folder")
    with only_one_writer(folder / "audit"):
        yield folder


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Has a GPU use kernels that give the same numbers each time; afterwards all is as before."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, workspace = torch.backends.cudnn.benchmark, os.environ.get(CUBLAS_WORKSPACE)
    os.environ.setdefault(CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACE)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(CUBLAS_WORKSPACE, None)
