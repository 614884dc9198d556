"""Attack one model at all epsilons and write a record with the outcome of every image."""

from argparse import Namespace

from creditflow.attacks.judge import choose_images, get_attack, run_attack
from creditflow.attacks.metrics import attack_metrics, attack_outcomes, robust_accuracies
from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core.run_memory import known_sha256
from creditflow.records.record import write_record
from creditflow.stages import attacking, measuring
from creditflow.stages.command_line import add_compute_options, run_stage, stage_parser


def _options() -> Namespace:
    parser = stage_parser(__doc__)
    measuring.add_model_options(parser)
    measuring.add_record_option(parser)
    attacking.add_attack_options(parser, "attack", "test images", '{"steps": 5}')
    attacking.add_surrogate_options(parser)
    attacking.add_judging_options(parser)
    add_compute_options(parser)
    return attacking.parse_attack_options(parser, "attack")


def main() -> None:
    args = _options()
    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    attack = get_attack(args.attack)
    parameters = attacking.attack_settings(args, "attack", attack.uses_gradient, attack.uses_surrogate)
    model, sidecar, data = measuring.loaded(args, device)
    chosen = choose_images(data, args.images)
    view, helpers = attacking.attacker_view(args, model), attacking.helpers(args, model, data)
    options = {"batch_size": args.batch_size, "seed": args.seed, "helpers": helpers}
    measured = {"keep": args.keep, "check_convergence": args.check_convergence}
    measured["confirm_gradients"] = attacking.is_said_to_be_exact(args, model)
    result = run_attack(attack, parameters, view, data, chosen, args.epsilons, **options, **measured)
    facts = {"stage": "attack", "input": args.input, "classes": args.classes, "data": known_sha256(args.data)}
    facts["class_names"] = list(data.class_names) if args.keep else None
    settings = attacking.attack_facts(args, attack.norm, parameters, sidecar) | attacking.judging_facts(args) | facts
    write_record(
        args.record,
        measuring.record_keys(args, sidecar, attack=args.attack, gradient=args.gradient),
        attack_metrics(result, args.epsilons),
        attack_outcomes(result, chosen),
        checks=result.checks,
        settings=settings,
        provenance=provenance_of(settings, device),
        run=watch.run_facts(),
    )
    for size, accuracy in zip(args.epsilons, robust_accuracies(result), strict=True):
        print(f"epsilon {size}: robust accuracy {accuracy:.1%}")


if __name__ == "__main__":
    run_stage(main)
