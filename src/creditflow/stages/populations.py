"""What the stage train_population does: options, images, resume point, progress, saving."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from creditflow.compute.checkpoints import Resume
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core import files, plugins
from creditflow.core.run_memory import known_sha256
from creditflow.core.settings import parse, plain
from creditflow.data.prepared import Subset, load_prepared
from creditflow.data.settings import InputSettings
from creditflow.models.build import ModelSpec
from creditflow.populations.images import FlatImages, flat_images
from creditflow.populations.population import Member, Population
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.storage import save_population
from creditflow.populations.training import train_population
from creditflow.stages import identity
from creditflow.stages.command_line import (
    add_compute_options,
    existing_file,
    file_path,
    json_object,
    natural,
    positive_number,
    stage_parser,
)


def population_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the options of the stage."""
    parser = stage_parser(description)
    parser.add_argument("--data", type=existing_file, required=True, help="dataset that prepare.py wrote")
    parser.add_argument("--classes", type=natural, nargs="+", help="labels to use, renumbered 0, 1, ...; all if absent")
    parser.add_argument("--input", type=json_object, default={}, help='what the network sees, such as {"channels": 3}')
    parser.add_argument("--rule", required=True, help=f"one of: {', '.join(plugins.names('update_rule'))}")
    parser.add_argument(
        "--settings", type=json_object, required=True, help='{"hidden": [1024], "epochs": 100, "batch_size": 64}'
    )
    parser.add_argument(
        "--learning-rates",
        type=positive_number,
        nargs="+",
        required=True,
        help="a network for each of them and each seed",
    )
    parser.add_argument(
        "--seeds", type=natural, nargs="+", required=True, help="every random number of a member derives from its seed"
    )
    parser.add_argument(
        "--checkpoint", type=file_path, help="resume file; written after each epoch, removed at the end"
    )
    parser.add_argument(
        "--output", type=file_path, required=True, help="population to write (.safetensors, with a .json beside it)"
    )
    parser.add_argument("--name", default="mlp", help="what records call the network, in place of a backbone")
    identity.add_filing_options(parser)
    identity.add_expected_data(parser)
    add_compute_options(parser, seed=False)
    return parser


def train_population_stage(args: argparse.Namespace, watch: Stopwatch) -> None:
    """Trains a population on the watch's device, with progress on the terminal and a resume point, and saves it.

    The resume point fits only the very same job. Raises UserError as `train_population` does, and for data that do not
    fit.
    """
    settings = parse(PopulationSettings, args.settings, "--settings")
    identity.check_data(args)
    data, test = _data(args, watch.device)
    job = _job(args, settings)
    provenance = provenance_of(job, watch.device)
    epochs: list[int] = []

    def on_epoch(population: Population) -> None:
        epochs.append(population.epoch)
        _print(population)

    with files.only_one_writer(args.checkpoint or args.output):
        population = train_population(
            get_update_rule(args.rule),
            [Member(seed, rate) for rate in sorted(set(args.learning_rates)) for seed in sorted(set(args.seeds))],
            _normalised(data, settings),
            _normalised(test, settings),
            settings,
            resume=_resume_point(args.checkpoint, job, provenance),
            on_epoch=on_epoch,
        )
        facts = {
            "identity": _filed_as(args),
            "spec": _spec(data, settings).to_json(),
            "measured_images": settings.measured_images(len(data.labels), len(test.labels)),
            # A killed run that was resumed counts fewer epochs than the population has.
            "run": watch.run_facts() | {"epochs_of_this_run": len(epochs)},
        }
        save_population(args.output, population, rule=args.rule, settings=job, provenance=provenance, **facts)
        if args.checkpoint:
            args.checkpoint.unlink(missing_ok=True)


def _data(args: argparse.Namespace, device: torch.device) -> tuple[Subset, Subset]:
    """Returns training and test split."""
    inputs = parse(InputSettings, args.input, "--input")
    train_split, test_split = (
        load_prepared(args.data, split, args.classes, inputs).to(device) for split in ("train", "test")
    )
    return train_split, test_split


def _normalised(data: Subset, settings: PopulationSettings) -> FlatImages:
    return replace(flat_images(data), mean=settings.pixel_mean, deviation=settings.pixel_deviation)


def _filed_as(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what the population is: the names under which it is filed."""
    return {
        "stage": "train_population",
        "experiment": args.experiment,
        "task": "classification",
        "dataset": identity.dataset_name(args),
        "backbone": args.name,
        "rule": args.rule,
    }


def _job(args: argparse.Namespace, settings: PopulationSettings) -> dict[str, Any]:
    """Returns everything that says which job this is."""
    return {
        "stage": "train_population",
        "rule": args.rule,
        "settings": plain(settings),
        "learning_rates": args.learning_rates,
        "seeds": args.seeds,
        "input": args.input,
        "classes": args.classes,
        "data": known_sha256(args.data),
    }


def _resume_point(path: Path | None, settings: dict[str, Any], provenance: dict[str, Any]) -> Resume | None:
    """Returns where the run keeps its checkpoint; None without a path."""
    # A checkpoint of other code or libraries must not be continued: no single version of the code would have trained
    # the population. The code is compared by its content, so the commit does not count.
    # Nor does a CPU's model: the nodes of a cluster may differ in it.
    job = files.fingerprint([settings, provenance | {"git_commit": None, "cpu": None}])
    return None if path is None else Resume(path, job)


def _spec(data: Subset, settings: PopulationSettings) -> ModelSpec:
    """Returns what each member is, as a model of backbone `mlp`."""
    options: dict[str, object] = {"hidden": list(settings.hidden), "activation": settings.activation}
    if settings.convolutions:
        options["convolutions"] = list(settings.convolutions)
    channels = data.image_shape[0]
    mean, deviation = (settings.pixel_mean,) * channels, (settings.pixel_deviation,) * channels
    return ModelSpec("mlp", data.image_shape, len(data.class_names), mean, deviation, options)


def _print(population: Population) -> None:
    """Prints the numbers of the last epoch, and which members diverged."""
    for index, (member, rows) in enumerate(zip(population.members, population.history, strict=True)):
        who = f"seed {member.seed}, learning rate {member.learning_rate:g}"
        if rows and rows[-1]["epoch"] == population.epoch:
            numbers = {name.replace("_", " "): value for name, value in rows[-1].items() if name != "epoch"}
            texts = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())
            print(f"epoch {population.epoch}: {who}: {texts}", flush=True)
        if step := int(population.diverged[index]):
            norm = float(population.norm[index])
            print(
                f"{who}: diverged at step {step}, from a norm of {norm:.3g} at the last epoch's end; the others go on",
                flush=True,
            )
