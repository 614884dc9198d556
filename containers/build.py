"""Build and verify the container image of this version and lock: `make container`.

The image is named by version, torch flavour and lock, so a new lock is a new image. If it is there already, nothing
is done. Its SHA-256 is noted beside it and goes into every record made inside it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spython.main import Client

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "src"))

from creditflow.compute.container import digest_path  # noqa: E402
from creditflow.core.errors import UserError  # noqa: E402
from creditflow.core.files import file_sha256, write_atomically  # noqa: E402
from creditflow.stages.command_line import run_stage, stage_parser  # noqa: E402
from creditflow.workflow.container import FLAVOURS, image_path, lock_hash  # noqa: E402

# As small as with gzip at its best, written eight times as fast; and each job's imports, which read from it, take two thirds of the time.
COMPRESSION = "-comp zstd -Xcompression-level 3"

CHECK = """
import torch, foolbox
from creditflow.compute.torchvision_import import torchvision
print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, torchvision {torchvision.__version__}, foolbox {foolbox.__version__}")
"""


def main() -> None:
    """Builds the image, unless it is there."""
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--flavour", choices=FLAVOURS, default="cuda", help="build of torch: cuda runs on machines without a GPU too"
    )
    parser.add_argument(
        "--base", choices=["docker", "debootstrap"], default="docker", help="debootstrap where there is no Docker Hub"
    )
    parser.add_argument("--mirror", help="Debian mirror for --base debootstrap")
    parser.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="PATH",
        help="what the build needs of the host, read-only; repeatable",
    )
    parser.add_argument(
        "--pip-options", default="", help="further options of pip install, such as --find-links=/wheels"
    )
    args = parser.parse_args()

    if shutil.which("apptainer") is None:
        raise UserError("apptainer is not installed; see https://apptainer.org/docs/admin/main/installation.html")
    lock = ROOT / "envs/requirements.txt"
    image = image_path(ROOT / "containers", lock, args.flavour)
    if image.exists() and digest_path(image).exists():
        print(f"{image} is there")
        return
    if args.base == "debootstrap" and not args.mirror:
        raise UserError("--base debootstrap needs --mirror, a Debian mirror such as the one in /etc/apt")
    if args.flavour == "cpu" and not args.pip_options:
        raise UserError(
            "--flavour cpu needs --pip-options='--extra-index-url=...' with PyTorch's index of CPU builds, or --find-links=..."
        )
    values = {
        "bootstrap": args.base,
        "mountpoints": " ".join(args.bind),
        "pip_options": args.pip_options,
        "version": image.name.split("-")[1],
        "lock": lock_hash(lock),
    } | ({"mirror": args.mirror} if args.mirror else {})
    build(image, values, args.bind)
    found = verify(image, args.flavour)
    write_atomically(digest_path(image), f"{file_sha256(image)}  {image.name}\n".encode())
    print(f"{image}: {image.stat().st_size / 2**20:.0f} MiB, {found}")


def build(image: Path, values: dict[str, str], binds: list[str]) -> None:
    """Builds next to the image's place and moves it there at the end. Raises UserError if the build fails."""
    part = image.with_name(f".{image.name}.part")
    options = [f"--mksquashfs-args={COMPRESSION}", *(f"--bind={path}:{path}:ro" for path in binds)]
    for key, value in values.items():
        options += ["--build-arg", f"{key}={value}"]
    if os.geteuid() == 0 or shutil.which("newuidmap"):
        options.append("--fakeroot")
    os.chdir(ROOT)  # the recipe names files of the project
    with singularity_command():
        done = Client.build(
            "containers/creditflow.def", str(part), sudo=False, force=True, options=options, return_result=True
        )
    if not part.exists():
        hint = "; where there is no Docker Hub, use --base debootstrap" if values["bootstrap"] == "docker" else ""
        raise UserError(f"the build failed; its last lines above say why{f' ({done})' if done else ''}{hint}")
    part.replace(image)


@contextmanager
def singularity_command() -> Iterator[None]:
    """Lets spython, which calls Apptainer by its old name, find it where only the new one is installed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "singularity").symlink_to(str(shutil.which("apptainer")))
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{before}{os.pathsep}{folder}"
        try:
            yield
        finally:
            os.environ["PATH"] = before


def verify(image: Path, flavour: str) -> str:
    """Imports the libraries inside the image. Raises UserError, and removes the image, if that fails."""
    inside = [
        "apptainer",
        "exec",
        "--cleanenv",
        "--env",
        "PYTHONPATH=src",
        *(["--userns"] if os.geteuid() == 0 else []),
        str(image),
    ]
    done = subprocess.run([*inside, "python", "-c", CHECK], cwd=ROOT, capture_output=True, text=True, check=False)
    found = done.stdout.strip()
    if done.returncode != 0 or (flavour == "cuda") == ("CUDA None" in found):
        image.unlink()
        raise UserError(
            f"the image does not hold what it should ({found or done.stderr.strip().splitlines()[-1]}); it was removed"
        )
    return found


if __name__ == "__main__":
    run_stage(main)
