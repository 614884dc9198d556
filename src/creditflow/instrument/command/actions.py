"""What the commands do: they make the model, read the images, measure, and print what came out."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from creditflow.attacks.foreign import view_of
from creditflow.attacks.judge import get_attack, run_attack
from creditflow.attacks.metrics import robust_accuracies
from creditflow.compute.device import use_device
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.files import json_bytes, write_atomically
from creditflow.core.settings import parse
from creditflow.data.unit_images import unit_images
from creditflow.derivatives.check import check_gradient
from creditflow.instrument.audit import audit
from creditflow.instrument.command.requests import AttackRequest, AuditSettings, ImagesRequest, ModelRequest
from creditflow.instrument.images import load_images
from creditflow.instrument.wrapped import UnitRange, read_preprocessing
from creditflow.models.factories import make_model
from creditflow.records.guards import fired, in_words

#: Images that an attack works on at once, where nothing else is said.
_BATCH = 250


def audit_models(
    request: ModelRequest,
    compared: ModelRequest | None,
    shown: ImagesRequest,
    epsilons: Sequence[float],
    settings: AuditSettings,
) -> None:
    """Audits a model, alone or beside a reference, writes the result into a folder and prints it."""
    device = use_device(settings.device, torch.get_num_threads())
    named = {request.name if request.name != "reference" else "model": request.trained()}
    if compared is not None:
        named["reference"] = compared.trained()
    models = {name: _model(each, shown).to(device) for name, each in named.items()}
    images, labels = _images(shown)
    stated = [each.normalisation for each in named.values()]
    shared = stated[0] if all(values == stated[0] for values in stated) else None
    if shared is None:
        models = {name: _normalising(models[name], each, images) for name, each in named.items()}
    try:
        result = audit(
            models,
            images,
            labels,
            epsilons=epsilons,
            bounds=shown.bounds,
            preprocessing=shared,
            margin=settings.margin,
            budget=settings.budget,
            batch_size=settings.batch_size,
            device=device,
            seed=shown.seed,
            save=settings.output,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {settings.output} keeps what is done: run the same command again to go on"
        ) from None
    print(result)
    print(f"\nreport: {settings.output / 'report.html'}")


def check_model(request: ModelRequest, shown: ImagesRequest, output: Path | None, device: str) -> None:
    """Checks a model's gradient, prints the report, and writes it as JSON if a file is named."""
    place = use_device(device, torch.get_num_threads())
    model = _model(request, shown).to(place)
    images, labels = (tensor.to(place) for tensor in _images(shown))
    preprocess = read_preprocessing(request.normalisation, images.shape[1], place)
    report = check_gradient(model, images if preprocess is None else preprocess(images), labels, seed=shown.seed)
    if output is not None:
        write_atomically(output, json_bytes(report.to_dict()))
    print(report)


def attack_model(request: ModelRequest, shown: ImagesRequest, epsilons: Sequence[float], chosen: AttackRequest) -> None:
    """Attacks a model, prints the accuracy that is left, and writes the adversarial images if a file is named.

    Signs that this accuracy means less than it seems are printed as warnings: what the gradient is worth, and guards.
    """
    device = use_device(chosen.device, torch.get_num_threads())
    attack = get_attack(chosen.attack)
    parameters = parse(plugins.settings_class("attack", chosen.attack), chosen.settings, f"settings of {chosen.attack}")
    request = request.trained()
    model = _model(request, shown).to(device)
    images, labels = _images(shown)
    low, high = shown.bounds
    preprocess = read_preprocessing(request.normalisation, images.shape[1], device)
    network = UnitRange(view_of(model, chosen.gradient, honest=False), shown.bounds, preprocess).eval()
    inside = (images - low) / (high - low) if shown.bounds != (0.0, 1.0) else images
    result = run_attack(
        attack,
        parameters,
        network,
        unit_images(inside, labels, device),
        torch.arange(len(labels)),
        [size if attack.norm == "l0" else size / (high - low) for size in epsilons],
        batch_size=chosen.batch_size or _BATCH,
        seed=shown.seed,
        keep=len(labels) if chosen.output is not None else 0,
        confirm_gradients=chosen.gradient == "exact",
    )
    print(f"accuracy without an attack: {float(result.clean_correct.double().mean()):.1%} of {len(labels)} images")
    for size, accuracy in zip(epsilons, robust_accuracies(result), strict=True):
        print(f"{chosen.attack}, {chosen.gradient} gradient, {attack.norm} {size:g}: accuracy {accuracy:.1%}")
    doubts = [f"guard: {in_words(name)}; the accuracy means less than it seems" for name in fired(result.checks)]
    if attack.uses_gradient:
        asked = UnitRange(model, shown.bounds, preprocess).eval()
        report = check_gradient(asked, inside.to(device), labels.to(device), layers=False, seed=shown.seed)
        doubts += _of_gradient(report.verdict, report.reason, chosen.gradient)
    for doubt in doubts:
        print(f"warning: {doubt}", file=sys.stderr)
    if chosen.output is not None and result.kept is not None:
        kept = {name.removeprefix("kept_"): tensor.numpy() for name, tensor in result.kept.outcomes().items()}
        adversarial = {"adversarial": kept.pop("images") * (high - low) + low, "images": images.numpy()}
        _write_npz(chosen.output, kept | adversarial | {"epsilons": np.array(epsilons)})
        print(f"adversarial images: {chosen.output}")


def _of_gradient(verdict: str, reason: str, followed: str) -> list[str]:
    """Returns what an attack that follows a gradient ("exact" or "own") should say of it."""
    if verdict == "no useful gradient":
        return [f"{reason} This attack shows little then; creditflow audit tries others too."]
    if verdict == "surrogate" and followed == "own":
        return [f"{reason} Take --gradient exact."]
    return []


def _model(request: ModelRequest, shown: ImagesRequest) -> nn.Module:
    """Returns the model that a request names. Raises UserError for published weights and other pixels than theirs."""
    published = request.parsed.weights
    if published is not None:
        if shown.bounds != (0.0, 1.0):
            raise UserError(f"{request.source}: published weights are for pixels from 0 to 1; leave --bounds out")
        print(f"note: {request.source} has published weights, and the normalisation that they need", file=sys.stderr)
    return make_model(request.source, weights=request.weights, sha256=request.sha256)


def _images(shown: ImagesRequest) -> tuple[Tensor, Tensor]:
    return load_images(shown.source, bounds=shown.bounds, size=shown.size, count=shown.count, seed=shown.seed)


def _normalising(model: nn.Module, request: ModelRequest, images: Tensor) -> nn.Module:
    """Returns a model whose first layer is the normalisation that the request states; the model itself without one."""
    first = read_preprocessing(request.normalisation, images.shape[1], next(model.parameters(), images).device)
    return model if not isinstance(first, nn.Module) else nn.Sequential(first, model).eval()


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
