"""Fetch the published weights of a backbone, from a local folder or else from their address.

The file is verified by its SHA-256.
"""

from creditflow.core import plugins
from creditflow.models.published import fetch_weights
from creditflow.stages.command_line import file_path, run_stage, stage_parser


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--backbone", required=True, help=f"one of: {', '.join(plugins.names('backbone'))}")
    parser.add_argument("--weights", default="IMAGENET1K_V1", help="torchvision's name of the weights")
    parser.add_argument(
        "--search-path", type=file_path, action="append", default=[], help="folder to look in first; repeatable"
    )
    parser.add_argument("--output", type=file_path, required=True, help="file to write (.pth)")
    args = parser.parse_args()

    origin = fetch_weights(args.backbone, args.weights, args.search_path, args.output)
    print(f"{args.backbone}: {args.weights} from {origin}")


if __name__ == "__main__":
    run_stage(main)
