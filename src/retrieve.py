"""Search a database for a model's queries by their codes, and write a record."""

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core.files import file_sha256
from creditflow.records.record import write_record
from creditflow.retrieval.metrics import chance, retrieval_metrics, retrieval_outcomes, search
from creditflow.stages.command_line import add_compute_options, run_stage, stage_parser
from creditflow.stages.measuring import add_record_option, decay_check, history_metrics, record_keys
from creditflow.stages.retrieval import add_codes_option, add_retrieval_options, read_codes, retrieval_model


def main() -> None:
    parser = stage_parser(__doc__)
    add_retrieval_options(parser)
    add_codes_option(parser)
    add_record_option(parser)
    add_compute_options(parser)
    args = parser.parse_args()

    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    _, sidecar, _, retrieval, source = retrieval_model(args, device)
    codes = read_codes(args, sidecar, source)
    searched = search(codes["query"], codes["database"], retrieval.top)
    k, n = searched.precisions.k, len(codes["query"].codes)
    settings = source | {"stage": "retrieve", "top": k, "codes": file_sha256(args.codes)}
    write_record(
        args.record,
        record_keys(args, sidecar, attack="clean", gradient="none", task="retrieval"),
        [*retrieval_metrics(searched), *history_metrics(sidecar, n)],
        retrieval_outcomes(searched),
        checks={"chance": chance(codes["query"], codes["database"], retrieval.top)} | decay_check(sidecar),
        settings=settings,
        provenance=provenance_of(settings, device),
        run=watch.run_facts(),
    )
    print(f"{args.model}: mAP@{k} {searched.map:.2%} of {n} queries in {searched.database} images")


if __name__ == "__main__":
    run_stage(main)
