"""Measure where an attacker's gradient points, and where its steps lead, on one model: why an attack fails."""

import argparse

from creditflow.attacks.judge import choose_images
from creditflow.attacks.why import measure, why_metrics, why_outcomes
from creditflow.attacks.why_settings import WhySettings
from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core.run_memory import known_sha256
from creditflow.core.settings import parse, plain
from creditflow.records.record import write_record
from creditflow.stages import attacking, measuring
from creditflow.stages.command_line import add_compute_options, json_object, run_stage, stage_parser


def _options() -> argparse.Namespace:
    parser = stage_parser(__doc__)
    measuring.add_model_options(parser)
    measuring.add_record_option(parser)
    attacking.add_gradient_option(parser)
    parser.add_argument("--settings", type=json_object, required=True, help='such as {"epsilon": 0.1, "images": 100}')
    add_compute_options(parser)
    return parser.parse_args()


def main() -> None:
    args = _options()
    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    settings = parse(WhySettings, args.settings, "--settings")
    model, sidecar, data = measuring.loaded(args, device)
    chosen = choose_images(data, settings.images)
    view = attacking.attacker_view(args, model)
    measured = measure(attacking.exact_view(model, args.model), view, data, chosen, settings)
    facts = {
        "stage": "measure_gradients",
        "gradient": args.gradient,
        "parameters": plain(settings),
        "input": args.input,
        "classes": args.classes,
        "data": known_sha256(args.data),
        "seed": args.seed,
        "model": sidecar["sha256"],
    } | attacking.given_facts(sidecar)
    write_record(
        args.record,
        measuring.record_keys(args, sidecar, attack="why", gradient=args.gradient),
        why_metrics(measured, settings),
        why_outcomes(measured, chosen),
        settings=facts,
        provenance=provenance_of(facts, device),
        run=watch.run_facts(),
    )
    print(f"gradient {args.gradient}: cosine to the exact one {measured.cosine.mean():.3f}")


if __name__ == "__main__":
    run_stage(main)
