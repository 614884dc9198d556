"""Hash codes of a model: of its queries, training images and database."""

from creditflow.compute.device import use_device
from creditflow.retrieval.codes import encode
from creditflow.retrieval.storage import PARTS, Encoded, save_codes
from creditflow.stages.command_line import add_compute_options, file_path, run_stage, stage_parser
from creditflow.stages.retrieval import add_retrieval_options, codes_identity, retrieval_model


def main() -> None:
    parser = stage_parser(__doc__)
    add_retrieval_options(parser)
    parser.add_argument("--output", type=file_path, required=True, help="codes to write (.safetensors)")
    add_compute_options(parser)
    args = parser.parse_args()

    device = use_device(args.device, args.threads)
    model, sidecar, parts, _, source = retrieval_model(args, device)
    encoded = {name: Encoded(encode(model, parts[name]), parts[name].labels) for name in PARTS}
    save_codes(args.output, encoded, source, codes_identity(args, sidecar))
    for name, part in encoded.items():
        distinct = len(part.codes.unique(dim=0))
        print(f"{name}: {len(part.codes)} images, {distinct} different codes")


if __name__ == "__main__":
    run_stage(main)
