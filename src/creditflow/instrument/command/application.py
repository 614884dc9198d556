"""The commands and their options. What they do stands in `actions`, which is imported only where it is needed.

A command returns what it will do, so that nothing of Typer is on the way when it is done: errors, Ctrl-C and SIGTERM
are those of `core.programs.run_program`.
"""

import platform
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.main import get_command

import creditflow
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.instrument.command import options
from creditflow.instrument.command.options import SeveralValues
from creditflow.instrument.command.requests import AttackRequest, AuditSettings, ImagesRequest, ModelRequest

#: What a command will do.
Action = Callable[[], None]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Says how robust a PyTorch model is, and whether its gradient can be trusted to say so.",
)


def run(arguments: Sequence[str]) -> None:
    """Runs a command line. Raises UserError for one that is wrong, and whatever its command raises."""
    try:
        action = get_command(app).main([*arguments] or ["--help"], prog_name="creditflow", standalone_mode=False)
    except typer.TyperException as error:
        what = " ".join(error.format_message().split()).rstrip(".")
        raise UserError(f"{what}; `creditflow {_command(arguments)}--help` lists what there is") from error
    if action == 130:  # Ctrl-C while the options were read
        raise KeyboardInterrupt
    if callable(action):
        action()


def _command(arguments: Sequence[str]) -> str:
    """Returns the command that a command line begins with, and a blank; nothing if it begins with none."""
    names = [command.name for command in app.registered_commands]
    return f"{arguments[0]} " if arguments and arguments[0] in names else ""


@app.command(
    "audit",
    cls=SeveralValues,
    short_help="Measure how robust a model is.",
    epilog="Example: creditflow audit my_module.py:make_model --weights weights.pt --images folder/"
    " --epsilons 0.01 0.05 --reference torchvision:resnet18 --output audit/",
)
def audit(
    model: options.Model,
    images: options.Images,
    epsilons: options.Epsilons,
    weights: options.Weights = None,
    sha256: options.Sha256 = None,
    reference: options.Reference = None,
    reference_weights: options.Weights = None,
    reference_sha256: options.Sha256 = None,
    output: Annotated[Path, typer.Option(help="Folder of the report, the records and the images.")] = Path("audit"),
    budget: Annotated[
        Literal["quick", "default", "strong"], typer.Option(help="How much time the attacks may take.")
    ] = "default",
    margin: Annotated[
        float, typer.Option(min=0, max=100, help="Points of accuracy below which a difference does not matter.")
    ] = 5.0,
    bounds: options.Bounds = None,
    mean: options.Mean = None,
    std: options.Std = None,
    reference_mean: options.Mean = None,
    reference_std: options.Std = None,
    size: options.Size = None,
    count: options.Count = 1000,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> Action:
    """Measure how robust a model is, alone or beside a reference, by attacks that do not trust its gradient.

    A run that was stopped goes on where it was if the same command is run again. A network of torchvision without a
    file of weights has its published ones, with the normalisation that belongs to them.
    """
    request = ModelRequest(model, weights, sha256, options.normalisation(mean, std))
    compared = None
    if reference is not None:
        stated = options.normalisation(reference_mean, reference_std, "reference-") or request.normalisation
        compared = ModelRequest(reference, reference_weights, reference_sha256, stated)
    elif reference_weights or reference_sha256 or reference_mean or reference_std:
        raise UserError("there are options of a reference, but no reference; name it by --reference")
    shown = ImagesRequest(images, options.bounds(bounds), size, count, seed)
    settings = AuditSettings(output, budget, margin, batch_size, device)
    return _later("audit_models", request, compared, shown, options.numbers(epsilons, "--epsilons"), settings)


@app.command("check-gradient", cls=SeveralValues, short_help="Find out whether a model's gradient is right.")
def check_gradient(
    model: options.Model,
    images: options.Images,
    weights: options.Weights = None,
    sha256: options.Sha256 = None,
    output: Annotated[
        Path | None, typer.Option(help="File to which the report is written as JSON, too.", show_default=False)
    ] = None,
    bounds: options.Bounds = None,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    count: options.Count = 16,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> Action:
    """Find out whether a model's backward pass is the derivative of its forward pass, and which layers are to blame."""
    request = ModelRequest(model, weights, sha256, options.normalisation(mean, std))
    shown = ImagesRequest(images, options.bounds(bounds), size, count, seed)
    return _later("check_model", request, shown, output, device)


@app.command("attack", cls=SeveralValues, short_help="Run one attack on a model.")
def attack(
    model: options.Model,
    images: options.Images,
    epsilons: options.Epsilons,
    attack: Annotated[str, typer.Option(help="The attack; `creditflow attacks` lists them.")] = "pgd",
    gradient: Annotated[
        Literal["exact", "own"],
        typer.Option(help="What the attack follows: the derivative of what the model computes, or the model's own."),
    ] = "exact",
    settings: Annotated[
        str,
        typer.Option(metavar="JSON", help='Settings of the attack, such as {"steps": 5}: docs/configuration.md.'),
    ] = "{}",
    weights: options.Weights = None,
    sha256: options.Sha256 = None,
    output: Annotated[
        Path | None, typer.Option(help="An .npz file for the adversarial images.", show_default=False)
    ] = None,
    bounds: options.Bounds = None,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    count: options.Count = 1000,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> Action:
    """Run one attack on a model and print the accuracy that is left at each size of perturbation."""
    request = ModelRequest(model, weights, sha256, options.normalisation(mean, std))
    shown = ImagesRequest(images, options.bounds(bounds), size, count, seed)
    plugins.check("attack", attack)
    chosen = AttackRequest(attack, gradient, options.json_object(settings, "--settings"), batch_size, device, output)
    return _later("attack_model", request, shown, options.numbers(epsilons, "--epsilons"), chosen)


@app.command("rules")
def rules() -> Action:
    """List the learning rules."""
    return partial(_listing, "rule")


@app.command("attacks")
def attacks() -> Action:
    """List the attacks."""
    return partial(_listing, "attack")


@app.command("version")
def version() -> Action:
    """Print the versions of creditflow, Python and torch."""
    return _print_versions


def _later(name: str, *arguments: object) -> Action:
    """Returns a call of a function of `actions`, which is imported when it is called, as it brings torch."""

    def act() -> None:
        from creditflow.instrument.command import actions

        getattr(actions, name)(*arguments)

    return act


def _listing(kind: str) -> None:
    names = plugins.names(kind)
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {' '.join(plugins.docstring(kind, name).partition(chr(10) * 2)[0].split())}")


def _print_versions() -> None:
    try:
        torch = installed_version("torch")
    except PackageNotFoundError:
        torch = "not installed"
    print(f"creditflow {creditflow.__version__} (Python {platform.python_version()}, torch {torch})")
