"""Attack one model at all epsilons and write a record with the outcome of every image."""

from dataclasses import asdict

from creditflow.attacks.judge import choose_images, get_attack, run_attack
from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core import plugins
from creditflow.core.files import file_sha256
from creditflow.core.settings import parse
from creditflow.models.storage import read_sidecar
from creditflow.records.record import write_record
from creditflow.stages.command_line import (
    add_compute_options,
    epsilon,
    existing_file,
    json_object,
    positive,
    run_stage,
    stage_parser,
)
from creditflow.stages.measuring import (
    add_model_options,
    add_record_option,
    attack_metrics,
    attacker_view,
    check_gradient,
    helpers,
    loaded,
    record_keys,
)


def main() -> None:
    parser = stage_parser(__doc__)
    add_model_options(parser)
    add_record_option(parser)
    parser.add_argument("--attack", required=True, help=f"one of: {', '.join(plugins.names('attack'))}")
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
        "--settings", type=json_object, default={}, help='parameters of the attack, such as {"steps": 5}'
    )
    parser.add_argument(
        "--images", type=positive, default=1000, help="number of test images; the same ones for every model"
    )
    parser.add_argument("--batch-size", type=positive, default=250, help="images attacked at once")
    parser.add_argument("--surrogate", type=existing_file, help="model that a transfer attack makes its images on")
    add_compute_options(parser)
    args = parser.parse_args()

    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    attack = get_attack(args.attack)
    check_gradient(args.attack, attack.uses_gradient, args.gradient)
    parameters = parse(attack.settings, args.settings, f"settings of attack {args.attack}")
    model, sidecar, data = loaded(args, device)
    chosen = choose_images(data, args.images)
    result = run_attack(
        attack,
        parameters,
        attacker_view(args.model, model, args.gradient),
        data,
        chosen,
        args.epsilons,
        batch_size=args.batch_size,
        seed=args.seed,
        helpers=helpers(args, model, args.gradient),
    )
    settings = {
        "stage": "attack",
        "attack": args.attack,
        "gradient": args.gradient,
        "norm": attack.norm,
        "parameters": asdict(parameters),
        "epsilons": args.epsilons,
        "images": args.images,
        "batch_size": args.batch_size,
        "input": args.input,
        "classes": args.classes,
        "data": file_sha256(args.data),
        "seed": args.seed,
        "model": sidecar["sha256"],
        "surrogate": read_sidecar(args.surrogate)["sha256"] if args.surrogate else None,
    }
    arrays = {"correct": result.correct, "perturbation": result.perturbation, "example": chosen}
    if result.distance is not None:
        arrays["distance"] = result.distance
    write_record(
        args.record,
        record_keys(args, sidecar, attack=args.attack, gradient=args.gradient),
        attack_metrics(result, args.epsilons),
        {name: tensor.numpy() for name, tensor in arrays.items()},
        checks=result.checks,
        settings=settings,
        provenance=provenance_of(settings, device),
        run=watch.run_facts(),
    )
    for size, correct in zip(args.epsilons, result.correct, strict=True):
        print(f"epsilon {size}: robust accuracy {float(correct.double().mean()):.1%}")


if __name__ == "__main__":
    run_stage(main)
