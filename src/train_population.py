"""Train a population: one network for each seed and learning rate, under one update rule, all in one job."""

from dataclasses import asdict, replace
from pathlib import Path

from creditflow.compute import matmul
from creditflow.compute.checkpoints import Resume
from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core import files, plugins
from creditflow.core.settings import parse
from creditflow.data.inputs import InputSettings
from creditflow.data.prepared import load_prepared
from creditflow.models.build import ModelSpec
from creditflow.populations.images import flat_images
from creditflow.populations.population import Member, Population
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.storage import save_population
from creditflow.populations.training import train_population
from creditflow.stages.command_line import (
    add_compute_options,
    existing_file,
    json_object,
    natural,
    positive_number,
    run_stage,
    stage_parser,
)


def main() -> None:
    parser = stage_parser(__doc__)
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
    parser.add_argument("--checkpoint", type=Path, help="resume file; written after each epoch, removed at the end")
    parser.add_argument(
        "--output", type=Path, required=True, help="population to write (.safetensors, with a .json beside it)"
    )
    add_compute_options(parser, seed=False)
    args = parser.parse_args()

    device = use_device(args.device, args.threads)
    matmul.use_faster_matmul()
    watch = Stopwatch(device)
    settings = parse(PopulationSettings, args.settings, "--settings")
    inputs = parse(InputSettings, args.input, "--input")
    data, test = (load_prepared(args.data, split, args.classes, inputs).to(device) for split in ("train", "test"))
    options: dict[str, object] = {"hidden": list(settings.hidden), "activation": settings.activation}
    if settings.convolutions:
        options["convolutions"] = list(settings.convolutions)
    channels = data.image_shape[0]
    normalisation = (settings.pixel_mean,) * channels, (settings.pixel_deviation,) * channels
    spec = ModelSpec("mlp", data.image_shape, len(data.class_names), *normalisation, options)
    members = [Member(seed, rate) for rate in sorted(set(args.learning_rates)) for seed in sorted(set(args.seeds))]
    identity = {
        "stage": "train_population",
        "rule": args.rule,
        "settings": asdict(settings),
        "learning_rates": args.learning_rates,
        "seeds": args.seeds,
        "input": args.input,
        "classes": args.classes,
        "data": files.file_sha256(args.data),
    }
    provenance = provenance_of(identity, device)
    # As for other training, a resume point of other code or libraries is not gone on from.
    resume = (
        Resume(args.checkpoint, files.fingerprint([identity, provenance | {"git_commit": None}]))
        if args.checkpoint
        else None
    )
    epochs: list[int] = []

    def on_epoch(population: Population) -> None:
        epochs.append(population.epoch)
        _print(population)

    with files.only_one_writer(args.checkpoint or args.output):
        flat, flat_test = (
            replace(flat_images(one), mean=settings.pixel_mean, deviation=settings.pixel_deviation)
            for one in (data, test)
        )
        rule = get_update_rule(args.rule)
        population = train_population(rule, members, flat, flat_test, settings, resume=resume, on_epoch=on_epoch)
        save_population(
            args.output,
            population,
            rule=args.rule,
            spec=spec.to_json(),
            measured_images=settings.measured_images(len(data.labels), len(test.labels)),
            settings=identity,
            provenance=provenance,
            run=watch.run_facts()
            | {"epochs_of_this_run": len(epochs)},  # fewer than all where a killed run was resumed
        )
        if args.checkpoint:
            args.checkpoint.unlink(missing_ok=True)


def _print(population: Population) -> None:
    for member, rows in zip(population.members, population.history, strict=True):
        if rows and rows[-1]["epoch"] == population.epoch:
            numbers = ", ".join(
                f"{name.replace('_', ' ')} {value:.4f}" for name, value in rows[-1].items() if name != "epoch"
            )
            print(
                f"epoch {population.epoch}: seed {member.seed}, learning rate {member.learning_rate:g}: {numbers}",
                flush=True,
            )
    diverged = ((population.diverged > 0) & (population.best_epoch < population.epoch)).nonzero().flatten().tolist()
    for index in diverged:
        member, step = population.members[index], int(population.diverged[index])
        norm = float(population.norm[index])
        place = f"seed {member.seed}, learning rate {member.learning_rate:g}"
        print(
            f"{place}: diverged at step {step}, from a norm of {norm:.3g} at the last epoch's end; the others go on",
            flush=True,
        )


if __name__ == "__main__":
    run_stage(main)
