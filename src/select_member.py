"""Choose a population's learning rate, and save one seed's network with it as an ordinary model."""

from argparse import Namespace

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.models.storage import save_model
from creditflow.populations.rates import in_words
from creditflow.populations.selection import chosen_rate, member_index, member_model, scores
from creditflow.populations.storage import load_population
from creditflow.stages.command_line import existing_file, file_path, natural, run_stage, stage_parser
from creditflow.stages.identity import add_expected_model


def options() -> Namespace:
    parser = stage_parser(__doc__)
    parser.add_argument("--population", type=existing_file, required=True, help="what train_population.py wrote")
    add_expected_model(parser, "population")
    parser.add_argument("--name", required=True, help="what records call the network, in place of a backbone")
    parser.add_argument("--seed", type=natural, required=True, help="seed of the member")
    parser.add_argument(
        "--output", type=file_path, required=True, help="model file to write (.safetensors, with sidecar)"
    )
    return parser.parse_args()


def main() -> None:
    args = options()
    device = use_device("cpu", 1)
    watch = Stopwatch(device)
    saved = load_population(args.population, args.expect_population)
    rate, score_at = chosen_rate(saved, str(args.population)), scores(saved)
    index = member_index(saved, args.seed, rate, str(args.population))
    member = saved.content["members"][index]
    chosen = {"stage": "select_member", "seed": args.seed}
    settings = chosen | {"population": saved.content["sha256"], "training": saved.content["settings"]}
    save_model(
        args.output,
        member_model(saved, index),
        rule=saved.content["rule"],
        feedback={name: value[index] for name, value in saved.feedback.items()},
        identity=saved.content.get("identity", {}) | chosen | {"backbone": args.name},
        seed=args.seed,
        population=args.name,
        learning_rate=rate,
        epoch=member["best_epoch"],
        scores={f"{tried:g}": score for tried, score in score_at.items()},
        settings=settings,
        history=member["history"],
        measured_images=saved.content["measured_images"],
        provenance=provenance_of(settings, device),
        run=watch.run_facts(),
    )
    tried = in_words(rate, [tried["learning_rate"] for tried in saved.content["members"]])
    rates = f"learning rate {tried} ({len(score_at)} without divergence)"
    print(f"{rates}, epoch {member['best_epoch']}, score {member['best_score']:.2%}")


if __name__ == "__main__":
    run_stage(main)
