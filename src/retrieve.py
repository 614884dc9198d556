"""Search a database for a model's queries by their codes, and write a record."""

import torch

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core.files import file_sha256
from creditflow.records.record import Metric, write_record
from creditflow.retrieval.ranking import average_precisions, curves
from creditflow.retrieval.storage import load_codes
from creditflow.stages.command_line import add_compute_options, existing_file, run_stage, stage_parser
from creditflow.stages.measuring import add_record_option, history_metrics, record_keys
from creditflow.stages.retrieval import add_retrieval_options, retrieval_model

#: Ranks at which precision is measured.
_RANKS = (1, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def main() -> None:
    parser = stage_parser(__doc__)
    add_retrieval_options(parser)
    parser.add_argument("--codes", type=existing_file, required=True, help="codes that encode.py wrote")
    add_record_option(parser)
    add_compute_options(parser)
    args = parser.parse_args()

    device = use_device(args.device, args.threads)
    watch = Stopwatch(device)
    _, sidecar, _, retrieval, source = retrieval_model(args, device)
    codes = load_codes(args.codes, source)
    queries, database = codes["query"], codes["database"]
    searched = (queries.codes, queries.labels, database.codes, database.labels)
    found, lines, n = average_precisions(*searched, retrieval.top), curves(*searched, _RANKS), len(queries.codes)
    metrics = [
        Metric("map", None, float(found.average.mean()), n),
        Metric("map_tie_averaged", None, float(found.tie_averaged.mean()), n),
        Metric("database", None, len(database.codes), n),
        *[
            Metric("precision_at", None, float(value), n, at=rank)
            for rank, value in zip(lines.ranks, lines.precision_at, strict=True)
        ],
        *[
            Metric("radius_precision", None, float(value), n, at=radius)
            for radius, value in enumerate(lines.radius_precision)
        ],
        *[
            Metric("radius_recall", None, float(value), n, at=radius)
            for radius, value in enumerate(lines.radius_recall)
        ],
        *history_metrics(sidecar, n),
    ]
    settings = source | {"stage": "retrieve", "top": found.k, "codes": file_sha256(args.codes)}
    write_record(
        args.record,
        record_keys(args, sidecar, attack="clean", gradient="none", task="retrieval"),
        metrics,
        {
            "ap": found.average[None].numpy(),
            "ap_tie_averaged": found.tie_averaged[None].numpy(),
            "example": torch.arange(n).numpy(),
        },
        settings=settings,
        provenance=provenance_of(settings, device),
        run=watch.run_facts(),
    )
    print(
        f"{args.model}: mAP@{found.k} {float(found.average.mean()):.2%} of {n} queries in {len(database.codes)} images"
    )


if __name__ == "__main__":
    run_stage(main)
