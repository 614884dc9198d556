"""Build and verify the container image of this version and lock: `make container`.

The name of the image contains the version, the flavour of torch and a hash of the lock, so a new lock makes a new
image. If the image exists and its SHA-256 is the one that was noted, nothing is done. The SHA-256 of the image is noted
beside it and goes into every record that is made inside.

What the image is made of is verified. The base image from Docker Hub is named by its digest. debootstrap verifies the
signature of Debian's Release file with Debian's keyring, and so does apt inside. pip verifies packages by their hashes.
"""

import argparse
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
from creditflow.workflow.container import FLAVOURS, check_image, image_path, lock_hash  # noqa: E402

# The image is as small as with gzip at its best and is written eight times as fast. The imports of each job, which read
# from the image, take two thirds of the time.
COMPRESSION = "-comp zstd -Xcompression-level 3"

# The base that debian.def makes is read once: packing it would take longer than writing it.
UNPACKED = "-noI -noD -noF -noX"

#: The keyring with which debootstrap verifies Debian's Release file. Without it, debootstrap goes on unverified.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

CHECK = """
import torch, foolbox
from creditflow.compute.torchvision_import import torchvision
print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, torchvision {torchvision.__version__}", end=", ")
print(f"foolbox {foolbox.__version__}")
"""


def main() -> None:
    """Builds the image, unless the one that was built is there."""
    args = options()
    if shutil.which("apptainer") is None:
        raise UserError("apptainer is not installed; see https://apptainer.org/docs/admin/main/installation.html")
    lock = ROOT / "envs/requirements.txt"
    image = image_path(ROOT / "containers", lock, args.flavour)
    if is_built(image, args.flavour):
        print(f"{image} is there")
        return
    check_sources(args)
    values = {
        "mountpoints": " ".join(args.bind),
        "pip_options": args.pip_options,
        "version": image.name.split("-")[1],
        "lock": lock_hash(lock),
    }
    with tempfile.TemporaryDirectory() as scratch:
        if args.base == "debootstrap":
            values |= {"bootstrap": "localimage", "from": str(debian(Path(scratch), args.mirror))}
        build(image, values, args.bind)
    versions = verify(image, args.flavour)
    write_atomically(digest_path(image), f"{file_sha256(image)}  {image.name}\n".encode())
    print(f"{image}: {image.stat().st_size / 2**20:.0f} MiB, {versions}")


def is_built(image: Path, flavour: str) -> bool:
    """Says whether the image is there and has the SHA-256 that was noted. If it has not, a line says why."""
    try:
        check_image(image, flavour)
    except UserError as error:
        print(f"{str(error).partition('; build it')[0]}; it is built now")
        return False
    return True


def options() -> argparse.Namespace:
    """Returns the options of the command line."""
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
        help="file or folder of the host that the build needs, read-only; repeatable",
    )
    parser.add_argument(
        "--pip-options", default="", help="further options of pip install, such as --find-links=/wheels"
    )
    return parser.parse_args()


def check_sources(args: argparse.Namespace) -> None:
    """Raises UserError if an option is missing that says where Debian or PyTorch come from, or Debian's keyring."""
    if args.base == "debootstrap" and not args.mirror:
        raise UserError("--base debootstrap needs --mirror, a Debian mirror such as the one in /etc/apt")
    if args.base == "debootstrap" and not KEYRING.is_file():
        raise UserError(f"there is no {KEYRING}, so Debian cannot be verified; install debian-archive-keyring")
    if args.flavour == "cpu" and not args.pip_options:
        raise UserError(
            "--flavour cpu needs --pip-options='--extra-index-url=...' with PyTorch's index of CPU builds,"
            " or --find-links=..."
        )


def debian(folder: Path, mirror: str) -> Path:
    """Makes an image of Debian in a folder and returns its path. Raises UserError if that fails.

    This is a build of its own: once debootstrap has run, Apptainer keeps a whole core busy until its process ends. (A
    goroutine of DebootstrapConveyorPacker.prepareFakerootEnv waits in a `for` that its `break` does not leave.)
    """
    image = folder / "debian.sif"
    if not apptainer_build("debian.def", image, {"mirror": mirror}, [f"--mksquashfs-args={UNPACKED}"]):
        raise UserError("the build of Debian failed; the last lines above say why")
    return image


def build(image: Path, values: dict[str, str], binds: list[str]) -> None:
    """Builds the image under a scratch name and renames it at the end. Raises UserError if the build fails."""
    part = image.with_name(f".{image.name}.part")
    # Apptainer's own test of the image is part of verify().
    options = ["--notest", f"--mksquashfs-args={COMPRESSION}", *(f"--bind={path}:{path}:ro" for path in binds)]
    if not apptainer_build("creditflow.def", part, values, options):
        hint = "" if "from" in values else "; where there is no Docker Hub, use --base debootstrap"
        raise UserError(f"the build failed; the last lines above say why{hint}")
    part.replace(image)


def apptainer_build(definition: str, image: Path, values: dict[str, str], options: list[str]) -> bool:
    """Builds an image from a definition in this folder. Returns whether the image is there afterwards."""
    options = [*options, *(f"--build-arg={key}={value}" for key, value in values.items())]
    if os.geteuid() == 0 or shutil.which("newuidmap"):
        options.append("--fakeroot")
    os.chdir(ROOT)  # the recipe names files of the project
    image.unlink(missing_ok=True)
    with singularity_command():
        Client.build(f"containers/{definition}", str(image), sudo=False, force=True, options=options)
    return image.exists()


@contextmanager
def singularity_command() -> Iterator[None]:
    """Lets spython find Apptainer, which it calls by the old name `singularity`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "singularity").symlink_to(str(shutil.which("apptainer")))
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{before}{os.pathsep}{folder}"
        try:
            yield
        finally:
            os.environ["PATH"] = before


def verify(image: Path, flavour: str) -> str:
    """Imports the libraries inside the image and returns their versions, as a text.

    If this fails, it removes the image and raises UserError.
    """
    inside = [
        "apptainer",
        "exec",
        "--cleanenv",
        "--env",
        "PYTHONPATH=src",
        *(["--userns"] if os.geteuid() == 0 else []),
        str(image),
    ]
    command = [*inside, "python", "-c", CHECK]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=1800)
    except subprocess.TimeoutExpired:
        image.unlink()
        raise UserError("the image does not answer within half an hour; it was removed") from None
    versions = done.stdout.strip()
    if done.returncode != 0 or (flavour == "cuda") == ("CUDA None" in versions):
        image.unlink()
        raise UserError(
            f"the image does not hold what it should ({versions or done.stderr.strip().splitlines()[-1]});"
            " it was removed"
        )
    return versions


if __name__ == "__main__":
    run_stage(main)
