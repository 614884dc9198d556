"""Collects the wheels that `benchmarks/gpu.py` needs on a machine without network, for a given version of Python.

    make gpu-wheels [PYTHON_VERSION=3.12] [OPTIONS="--output FOLDER"]

The machine is to have PyTorch and torchvision, and the large packages that commonly stand beside them (`COMMON`); the
wheels of all else that it imports are collected, in the versions of envs/requirements.txt, together with
BioTorch, which is compared with. On the machine, in the root of the repository:

    python3 -m pip install --no-index --no-deps --target /tmp/site FOLDER/*.whl
    PYTHONPATH=/tmp/site python3 benchmarks/gpu.py

Examples and weights inside a wheel, which nothing here reads, are left out: those of pyautoattack are 40 MiB.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "envs/requirements.txt"

#: What the benchmark imports, and what these packages import in turn.
NEEDED = (
    *(
        "annotated-types",
        "eagerpy",
        "foolbox",
        "gitdb",
        "gitpython",
        "jinja2",
        "markupsafe",
        "pyautoattack",
        "pydantic",
    ),
    *("pydantic-core", "pyyaml", "safetensors", "smmap", "tabulate", "tqdm", "typing-extensions"),
    "typing-inspection",
)
#: What is too large to carry, and commonly there where PyTorch is.
COMMON = ("matplotlib", "numpy", "pandas", "pillow", "pyarrow", "pytest", "requests", "scipy", "torch", "torchvision")
BIOTORCH = "biotorch==0.0.16"
MOST_MIB = 64
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def pinned() -> list[str]:
    """Returns each needed package with the version of the lock, and BioTorch."""
    versions = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    if missing := [name for name in NEEDED if name not in versions]:
        sys.exit(f"error: {LOCK} has no version of {', '.join(missing)}; run `make lock`")
    return [*(f"{name}=={versions[name]}" for name in NEEDED), BIOTORCH]


def pip(*arguments: str) -> str | None:
    """Runs pip; returns its last error, or None."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments, "--no-deps"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if not done.returncode:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return errors[-1] if errors else f"pip ended with status {done.returncode}"


def fetch(package: str, python: str, folder: Path) -> None:
    """Puts the wheel of a package into the folder. A package without wheels is built, if it is pure Python."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    reason = pip("download", *target, "--dest", str(folder), package)
    if reason is None:
        return
    before = set(folder.glob("*.whl"))
    if (failure := pip("wheel", "--wheel-dir", str(folder), package)) is not None:
        sys.exit(f"error: no wheel of {package} ({reason}; {failure})")
    if foreign := [path.name for path in set(folder.glob("*.whl")) - before if not path.stem.endswith("-none-any")]:
        sys.exit(f"error: {foreign[0]} was compiled for this machine's Python; choose another version of {package}")


def slimmed(source: Path, target: Path) -> None:
    """Writes a wheel without the examples inside its package."""
    example = re.compile(r"^[^/]+/examples/")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                content = "".join(line for line in lines if not example.match(line)).encode()
            if not example.match(name):
                new.writestr(name, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = "folder of the wheels (results/gpu-wheels)"
    parser.add_argument("--python-version", default="3.12", help="Python of the machine with the GPU (3.12)")
    parser.add_argument("--output", type=Path, default=Path("results/gpu-wheels"), help=where)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if old := list(args.output.glob("*.whl")):
        sys.exit(f"error: {args.output} has {len(old)} wheels already; remove them, or name another folder")
    with tempfile.TemporaryDirectory() as scratch:
        for package in pinned():
            fetch(package, args.python_version, Path(scratch))
        for path in sorted(Path(scratch).glob("*.whl")):
            slimmed(path, args.output / path.name)
    wheels = list(args.output.glob("*.whl"))
    size = sum(path.stat().st_size for path in wheels) / 2**20
    print(f"{len(wheels)} wheels for Python {args.python_version}, {size:.1f} MiB, in {args.output}")
    print(f"not among them, as they commonly stand beside PyTorch: {', '.join(COMMON)}")
    print("on the machine with the GPU, in the root of the repository:")
    print(f"  python3 -m pip install --no-index --no-deps --target /tmp/site {args.output}/*.whl")
    print("  PYTHONPATH=/tmp/site python3 benchmarks/gpu.py")
    if size > MOST_MIB:
        sys.exit(f"error: the wheels are larger than {MOST_MIB} MiB")


if __name__ == "__main__":
    main()
