"""Attack queries of one model at all epsilons, search for their codes, and write a record with the outcome of every query."""

from dataclasses import asdict

import torch
from torch import Tensor

from creditflow.attacks.hash_judge import get_hash_attack, run_hash_attack
from creditflow.attacks.judge import choose_images
from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core import plugins
from creditflow.core.files import file_sha256
from creditflow.core.settings import parse
from creditflow.records.record import Metric, write_record
from creditflow.retrieval.gallery import gallery
from creditflow.retrieval.ranking import average_precisions
from creditflow.retrieval.storage import Encoded, load_codes
from creditflow.stages.command_line import (
    add_compute_options,
    epsilon,
    existing_file,
    json_object,
    positive,
    run_stage,
    stage_parser,
)
from creditflow.stages.measuring import add_record_option, attacker_view, check_gradient, record_keys
from creditflow.stages.retrieval import add_retrieval_options, retrieval_model

#: Queries that are shown with what is found for them.
_SHOWN = 4


def main() -> None:
    parser = stage_parser(__doc__)
    add_retrieval_options(parser)
    parser.add_argument("--codes", type=existing_file, required=True, help="codes that encode.py wrote")
    parser.add_argument("--attack", required=True, help=f"one of: {', '.join(plugins.names('hash_attack'))}")
    parser.add_argument(
        "--gradient",
        choices=["exact", "feedback", "none"],
        default="exact",
        help="weights the attacker's gradient runs through: forward or feedback ones; none for an attack without gradients",
    )
    parser.add_argument(
        "--epsilons", type=epsilon, nargs="+", required=True, help="perturbation sizes, pixels in [0, 1]"
    )
    parser.add_argument(
        "--settings", type=json_object, default={}, help='parameters of the attack, such as {"iterations": 5}'
    )
    parser.add_argument(
        "--images", type=positive, default=1000, help="number of queries; the same ones for every model"
    )
    parser.add_argument("--batch-size", type=positive, default=250, help="queries attacked at once")
    add_record_option(parser)
    add_compute_options(parser)
    args = parser.parse_args()

    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    attack = get_hash_attack(args.attack)
    check_gradient(args.attack, attack.uses_gradient, args.gradient)
    parameters = parse(attack.settings, args.settings, f"settings of attack {args.attack}")
    model, sidecar, parts, retrieval, source = retrieval_model(args, device)
    codes = load_codes(args.codes, source)
    chosen = choose_images(parts["query"], args.images)
    # Spread over the queries, which come class by class.
    places, shown = (
        torch.linspace(0, len(chosen) - 1, min(_SHOWN, len(chosen))).long(),
        args.epsilons[len(args.epsilons) // 2],
    )
    result = run_hash_attack(
        attack,
        parameters,
        attacker_view(args.model, model, args.gradient),
        parts["query"],
        chosen,
        codes["train"].codes,
        codes["train"].labels,
        args.epsilons,
        batch_size=args.batch_size,
        seed=args.seed,
        shown=places.tolist(),
        shown_epsilon=shown,
    )
    labels, database, n = codes["query"].labels[chosen], codes["database"], len(chosen)
    found = [average_precisions(one, labels, database.codes, database.labels, retrieval.top) for one in result.codes]
    flipped = (result.codes != result.clean_codes).float().mean(2)
    metrics: list[Metric] = []
    for index, size in enumerate(args.epsilons):
        metrics += [
            Metric("map", size, float(found[index].average.mean()), n),
            Metric("map_tie_averaged", size, float(found[index].tie_averaged.mean()), n),
            Metric("flipped_bits", size, float(flipped[index].mean()), n),
            Metric("median_perturbation", size, float(result.perturbation[index].median()), n),
            Metric("largest_perturbation", size, float(result.perturbation[index].max()), n),
        ]
    settings = source | {
        "stage": "attack_retrieval",
        "attack": args.attack,
        "gradient": args.gradient,
        "norm": attack.norm,
        "parameters": asdict(parameters),
        "epsilons": args.epsilons,
        "images": args.images,
        "batch_size": args.batch_size,
        "top": found[0].k,
        "codes": file_sha256(args.codes),
        "seed": args.seed,
        "model": sidecar["sha256"],
    }
    inverted = average_precisions(-result.clean_codes, labels, database.codes, database.labels, retrieval.top)
    pictures = gallery(
        parts["query"],
        parts["database"],
        chosen[places],
        result.examples,
        _of(result.clean_codes, labels, places),
        _of(result.codes[args.epsilons.index(shown)], labels, places),
        database,
    )
    write_record(
        args.record,
        record_keys(args, sidecar, attack=args.attack, gradient=args.gradient, task="retrieval"),
        metrics,
        {
            "ap": torch.stack([one.average for one in found]).numpy(),
            "ap_tie_averaged": torch.stack([one.tie_averaged for one in found]).numpy(),
            "flipped_bits": flipped.numpy(),
            "perturbation": result.perturbation.numpy(),
            "example": chosen.numpy(),
            **{name: tensor.numpy() for name, tensor in pictures.items()},
        },
        checks={
            "mean_output": result.mean_output,
            "zero_gradients": result.zero_gradients,
            "map_of_inverted_codes": float(inverted.average.mean()),
            "shown_epsilon": shown,
        },
        settings=settings,
        provenance=provenance_of(settings, device),
        run=watch.run_facts(),
    )
    for size, one, reached in zip(args.epsilons, found, result.perturbation, strict=True):
        print(
            f"epsilon {size}: mAP@{one.k} {float(one.average.mean()):.1%}, largest perturbation {float(reached.max()):.4f}"
        )


def _of(codes: Tensor, labels: Tensor, places: Tensor) -> Encoded:
    return Encoded(codes[places], labels[places])


if __name__ == "__main__":
    run_stage(main)
