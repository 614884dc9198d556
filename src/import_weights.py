"""Make a pretrained model of the weights that torchvision publishes for a backbone.

The file is verified by its SHA-256 before it is read.
"""

import argparse

from creditflow.compute.device import use_device
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core import files, plugins
from creditflow.models.published import import_state, published_digits, verify
from creditflow.models.storage import save_model
from creditflow.stages.command_line import existing_file, file_path, image_size, run_stage, stage_parser


def options() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = stage_parser(__doc__)
    parser.add_argument("--backbone", required=True, help=f"one of: {', '.join(plugins.names('backbone'))}")
    parser.add_argument(
        "--file", type=existing_file, required=True, help="state dict (.pth) as torchvision publishes it"
    )
    parser.add_argument(
        "--sha256",
        help="SHA-256 of the file, or at least the first 8 digits; if absent, the digits in its name or those that"
        " torchvision states",
    )
    parser.add_argument(
        "--weights",
        help="torchvision's name of the weights, for their mean and standard deviation",
        default="IMAGENET1K_V1",
    )
    parser.add_argument(
        "--size", type=image_size, default=224, help="height and width of the images that the model will take"
    )
    parser.add_argument("--experiment", default="manual", help="name of the experiment that the model is filed under")
    parser.add_argument(
        "--output", type=file_path, required=True, help="model file to write (.safetensors, with sidecar)"
    )
    return parser.parse_args()


def main() -> None:
    args = options()
    device = use_device("cpu", 1)
    watch = Stopwatch(device)
    sha256 = verify(args.file, args.sha256, lambda: published_digits(args.backbone, args.weights))
    weights = {"backbone": args.backbone, "weights": args.weights, "size": args.size, "sha256": sha256}
    job = {"stage": "import_weights"} | weights
    identity = {"stage": "import_weights", "experiment": args.experiment, "backbone": args.backbone}
    model = import_state(args.backbone, args.file, args.weights, args.size)
    with files.only_one_writer(args.output):
        facts = {"settings": job, "provenance": provenance_of(job, device), "run": watch.run_facts()}
        save_model(args.output, model, identity=identity, **facts)
    print(f"{args.backbone}: {args.file} (SHA-256 {sha256[:12]}...)")


if __name__ == "__main__":
    run_stage(main)
