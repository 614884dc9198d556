"""Attack queries of one model at all epsilons, search for their codes, and record the outcome of every query."""

from argparse import Namespace

from creditflow.attacks import hash_metrics
from creditflow.attacks.hash_judge import Queries, Shown, get_hash_attack, run_hash_attack
from creditflow.attacks.judge import choose_images
from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core.files import file_sha256
from creditflow.records.record import write_record
from creditflow.stages import attacking
from creditflow.stages.command_line import add_compute_options, run_stage, stage_parser
from creditflow.stages.measuring import add_record_option, record_keys
from creditflow.stages.retrieval import add_codes_option, add_retrieval_options, read_codes, retrieval_model


def _options() -> Namespace:
    parser = stage_parser(__doc__)
    add_retrieval_options(parser)
    add_codes_option(parser)
    attacking.add_attack_options(parser, "hash_attack", "queries", '{"iterations": 5}')
    add_record_option(parser)
    add_compute_options(parser)
    return attacking.parse_attack_options(parser, "hash_attack")


def main() -> None:
    args = _options()
    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    attack = get_hash_attack(args.attack)
    parameters = attacking.attack_settings(args, "hash_attack", attack.uses_gradient)
    model, sidecar, parts, retrieval, source = retrieval_model(args, device)
    codes = read_codes(args, sidecar, source)
    chosen = choose_images(parts["query"], args.images)
    queries = Queries(parts["query"], chosen, codes["train"])
    view = attacking.attacker_view(args, model)
    options = {"batch_size": args.batch_size, "seed": args.seed, "shown": Shown.spread(4, len(chosen), args.epsilons)}
    result = run_hash_attack(attack, parameters, view, queries, args.epsilons, **options)
    searched = hash_metrics.search(result, codes["query"].labels[chosen], codes["database"], retrieval.top)
    facts = {"stage": "attack_retrieval", "top": searched.inverted.k, "codes": file_sha256(args.codes)}
    names = {"class_names": list(parts["query"].class_names)}
    settings = source | attacking.attack_facts(args, attack.norm, parameters, sidecar) | facts | names
    write_record(
        args.record,
        record_keys(args, sidecar, attack=args.attack, gradient=args.gradient, task="retrieval"),
        hash_metrics.hash_attack_metrics(searched),
        hash_metrics.hash_attack_outcomes(searched, queries, parts["database"]),
        checks=hash_metrics.hash_attack_checks(searched),
        settings=settings,
        provenance=provenance_of(settings, device),
        run=watch.run_facts(),
    )
    print(*hash_metrics.summary_lines(searched), sep="\n")


if __name__ == "__main__":
    run_stage(main)
