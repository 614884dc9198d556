"""What `check_gradient` says of networks from other libraries, and how far attacks get with the gradients they give.

    make bench-clients [OPTIONS="--seeds 3 --parts clients honest equality"]

There are three parts, and each writes one table between its marks in docs/clients.md and one list in docs/clients.json:

clients    networks of `_clients.py`, trained on scikit-learn's digits: the verdict, the layers that it names, and the
           accuracy under PGD (foolbox, 40 steps) with the network's own gradient and inside `exact_gradients`, and
           under Square (pyautoattack), which needs none
honest     architectures of torchvision and timm, untrained: none of them may be called anything but honest
equality   BioTorch's networks beside the plain ones: inside `exact_gradients` the gradients are the same

The libraries have pinned versions (requirements-clients.txt) and an environment of their own, `.venv-clients`. The
program ends with 1 if a verdict is not what is known of the library. Everything takes about 20 minutes on two cores.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import foolbox
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _architectures import ARCHITECTURES, architecture
from _clients import BIOTORCH_MODES, CLASSES, CLIENTS, Client, biotorch
from _digits import Digits, accuracy, digits, train
from _page import put_tables

import creditflow as cf
from creditflow.compute.provenance import cpu_model
from creditflow.compute.torchvision_import import torchvision
from creditflow.core.files import write_json
from creditflow.stages.command_line import positive

PAGE = Path(__file__).resolve().parents[1] / "docs/clients.md"
PARTS = ("clients", "honest", "equality")
#: Images that `check_gradient` looks at, steps of PGD, and queries of Square.
CHECKED, STEPS, QUERIES = 16, 40, 500


def attacked(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> float:
    """Returns the accuracy under foolbox's PGD in the L-infinity norm, with whatever gradient autograd gives."""
    torch.manual_seed(0)
    attack = foolbox.attacks.LinfPGD(rel_stepsize=0.1, steps=STEPS, random_start=True)
    _, _, fooled = attack(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=epsilon)
    return 1 - float(fooled.double().mean())


def searched(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> float:
    """Returns the accuracy under the Square Attack, which looks at outputs only."""
    attack = SquareAttack(model, "Linf", QUERIES, epsilon, n_restarts=1, seed=0, device="cpu")
    with torch.no_grad():
        return accuracy(model, attack.perturb(images, labels), labels)


def client_row(client: Client, seed: int, data: Digits, n_images: int, epsilon: float) -> dict[str, Any]:
    """Trains a network of a library and returns what is found out about it."""
    torch.manual_seed(seed)
    start = time.process_time()
    model = train(client.build(), data, epochs=client.epochs, seed=seed)
    seconds = time.process_time() - start
    images, labels = data.test_images[:n_images], data.test_labels[:n_images]
    report = cf.check_gradient(model, images[:CHECKED], labels[:CHECKED])
    exact = None
    if report.verdict != "no useful gradient":
        with cf.exact_gradients(model):
            exact = attacked(model, images, labels, epsilon)
    return {
        "library": client.library,
        "version": version(client.library),
        "model": client.model,
        "seed": seed,
        "expected": client.expected,
        "verdict": report.verdict,
        "reason": report.reason,
        "culprits": report.culprits,
        "kinds": sorted({layer.kind for layer in report.layers if layer.honest is False}),
        "cosine": report.cosine,
        "clean": accuracy(model, images, labels),
        "pgd_own": attacked(model, images, labels, epsilon),
        "pgd_exact": exact,
        "square": searched(model, images, labels, epsilon),
        "training_s": round(seconds, 1),
    }


def clients(args: argparse.Namespace) -> list[dict[str, Any]]:
    data = digits()
    rows = []
    for client in CLIENTS:
        if args.only and client.library not in args.only:
            continue
        for seed in range(args.seeds):
            rows.append(client_row(client, seed, data, args.images, args.epsilon))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def honest(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for library, names in ARCHITECTURES.items():
        for name, (size, _) in names.items():
            torch.manual_seed(0)
            model, images, start = architecture(library, name).eval(), torch.rand(2, 3, size, size), time.process_time()
            report = cf.check_gradient(model, images, torch.tensor([0, 1]))
            row = {"library": library, "version": version(library), "model": name, "size": size}
            row |= {"expected": "honest", "verdict": report.verdict, "reason": report.reason}
            row |= {"culprits": report.culprits, "seconds": round(time.process_time() - start, 1)}
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    torch.manual_seed(0)  # brSF draws in every pass
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), labels), images)
    return gradient


def equality(args: argparse.Namespace) -> list[dict[str, Any]]:
    from biotorch.models.le_net import LeNetMNIST

    rows = []
    resnet = partial(torchvision.models.resnet18, num_classes=CLASSES)
    for name, channels, make in (("LeNet-5", 1, LeNetMNIST), ("ResNet-18", 3, resnet)):
        for mode in BIOTORCH_MODES:
            torch.manual_seed(0)
            plain, images = make().eval(), torch.rand(4, channels, 32, 32)
            labels = torch.arange(4)
            converted = biotorch(mode, plain).eval()
            truth, own = (input_gradient(model, images, labels) for model in (plain, converted))
            with cf.exact_gradients(converted):
                inside = input_gradient(converted, images, labels)
            after = input_gradient(converted, images, labels)
            row = {"model": name, "mode": mode, "version": version("biotorch")}
            row |= {"cosine": float(F.cosine_similarity(own.flatten(), truth.flatten(), dim=0))}
            row |= {"difference": float((inside - truth).norm() / truth.norm()), "restored": torch.equal(own, after)}
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def clients_table(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Returns a row for each client, with means over its seeds."""
    table = []
    for library, model in dict.fromkeys((row["library"], row["model"]) for row in rows):
        same = [row for row in rows if (row["library"], row["model"]) == (library, model)]
        table.append(
            {
                "library": f"{library} {same[0]['version']}",
                "model": model,
                "verdict": ", ".join(dict.fromkeys(row["verdict"] for row in same)),
                "layers that it names": named(same[0]),
                "cosine": mean([row["cosine"] for row in same], "{:.2f}"),
                "clean": mean([row["clean"] for row in same]),
                "PGD, own gradient": mean([row["pgd_own"] for row in same]),
                "PGD, exact gradient": mean([row["pgd_exact"] for row in same]),
                "Square, no gradient": mean([row["square"] for row in same]),
            }
        )
    return table


def named(row: dict[str, Any], most: int = 60) -> str:
    """Returns the classes of the layers that are to blame, and their names if these are short, else their number."""
    if not row["culprits"]:
        return "-"
    names = ", ".join(f"`{name}`" for name in row["culprits"])
    number = f"{len(row['culprits'])} modules"
    return f"{', '.join(row['kinds'])} ({names if len(names) <= most else number})"


def mean(values: list[float | None], form: str = "{:.1%}") -> str:
    """Returns the mean of the values, and the least and the greatest if they differ; "none" where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return "none"
    middle, low, high = (form.format(f(known)) for f in (statistics.fmean, min, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def honest_table(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "library": f"{row['library']} {row['version']}",
            "architecture": row["model"],
            "image": f"{row['size']} x {row['size']}",
            "verdict": row["verdict"],
            "seconds": f"{row['seconds']:.1f}",
        }
        for row in rows
    ]


def equality_table(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "network": row["model"],
            "mode": row["mode"],
            "cosine outside": f"{row['cosine']:.3f}",
            "relative difference inside": f"{row['difference']:.1e}",
            "after it as before": "yes" if row["restored"] else "no",
        }
        for row in rows
    ]


def wrong(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Returns a line for each result that is not what is known of the library."""
    verdicts = [row for part in ("clients", "honest") for row in results.get(part, [])]
    lines = [
        f"{row['library']} {row['model']}: {row['verdict']}, but it is {row['expected']} ({row['reason']})"
        for row in verdicts
        if row["verdict"] != row["expected"]
    ]
    return lines + [
        f"BioTorch's {row['model']}, {row['mode']}: the gradient inside differs by {row['difference']:.1e}"
        for row in results.get("equality", [])
        if row["difference"] > 1e-6 or not row["restored"]
    ]


def publish(args: argparse.Namespace, results: dict[str, list[dict[str, Any]]]) -> None:
    """Writes the tables into the page, and the numbers into a JSON file beside it; other parts stay as they are.

    With --only, so do the rows of other libraries.
    """
    path = args.page.with_suffix(".json")
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part, rows in results.items():
        run = {"processor": cpu_model(), "threads": args.threads, "torch": torch.__version__}
        if part == "clients":
            run |= {"seeds": args.seeds, "images": args.images, "epsilon": args.epsilon}
            run |= {"pgd_steps": STEPS, "square_queries": QUERIES, "checked_images": CHECKED}
        kept = with_others(rows, content.get(part, {}), run, args.only) if part == "clients" else rows
        content[part] = {"run": run, "rows": kept}
    write_json(path, content)
    tables = {"clients": clients_table, "honest": honest_table, "equality": equality_table}
    put_tables(args.page, {part: tables[part](content[part]["rows"]) for part in results})


def with_others(
    rows: list[dict[str, Any]], before: dict[str, Any], run: dict[str, Any], only: list[str]
) -> list[dict[str, Any]]:
    """Returns the rows and those of other libraries from a run before, in the order of the clients."""
    if not only or not before:
        return rows
    if before["run"] != run:
        sys.exit(f"error: the page is of a run with other settings, {before['run']}: leave --only out")
    order = [(client.library, client.model) for client in CLIENTS]
    every = [row for row in before["rows"] if row["library"] not in only] + rows
    return sorted(every, key=lambda row: (order.index((row["library"], row["model"])), row["seed"]))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    libraries = sorted({client.library for client in CLIENTS})
    parser.add_argument(
        "--only", nargs="+", choices=libraries, default=[], help="clients of these libraries; rows of others stay"
    )
    parser.add_argument("--seeds", type=positive, default=3, help="networks of each client")
    parser.add_argument("--images", type=positive, default=100, help="images that are attacked, at most 500")
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE.md")
    return parser.parse_args()


def main() -> None:
    args = options()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", module="(torch|brevitas|timm)")
    measured = {"clients": clients, "honest": honest, "equality": equality}
    results = {part: measured[part](args) for part in args.parts}
    publish(args, results)
    if lines := wrong(results):
        sys.exit("\n".join(lines))


if __name__ == "__main__":
    main()
