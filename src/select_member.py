"""Choose a population's learning rate, and save one seed's network with it as an ordinary model."""

from pathlib import Path

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core.errors import UserError
from creditflow.models.storage import save_model
from creditflow.populations.selection import chosen_rate, member_model, scores
from creditflow.populations.storage import load_population
from creditflow.stages.command_line import existing_file, natural, run_stage, stage_parser


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--population", type=existing_file, required=True, help="population that train_population.py wrote"
    )
    parser.add_argument("--name", required=True, help="what records call the network, in place of a backbone")
    parser.add_argument("--seed", type=natural, required=True, help="seed of the member")
    parser.add_argument("--output", type=Path, required=True, help="model file to write (.safetensors, with sidecar)")
    args = parser.parse_args()

    device = use_device("cpu", 1)
    watch = Stopwatch(device)
    saved = load_population(args.population)
    rate, found = chosen_rate(saved, str(args.population)), scores(saved)
    members = saved.content["members"]
    indices = [index for index, one in enumerate(members) if (one["seed"], one["learning_rate"]) == (args.seed, rate)]
    if not indices:
        raise UserError(f"{args.population} has no seed {args.seed}; it has {sorted({one['seed'] for one in members})}")
    member = members[indices[0]]
    settings = {
        "stage": "select_member",
        "population": saved.content["sha256"],
        "training": saved.content["settings"],
        "seed": args.seed,
    }
    save_model(
        args.output,
        member_model(saved, indices[0]),
        rule=saved.content["rule"],
        feedback={name: value[indices[0]] for name, value in saved.feedback.items()},
        seed=args.seed,
        population=args.name,
        learning_rate=rate,
        epoch=member["best_epoch"],
        scores={f"{one:g}": score for one, score in found.items()},
        settings=settings,
        history=member["history"],
        measured_images=saved.content["measured_images"],
        provenance=provenance_of(settings, device),
        run=watch.run_facts(),
    )
    print(
        f"learning rate {rate:g} of {len(found)} that did not diverge, epoch {member['best_epoch']}, score {member['best_score']:.2%}"
    )


if __name__ == "__main__":
    run_stage(main)
