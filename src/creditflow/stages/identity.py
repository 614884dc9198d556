"""What stages expect to read: options that the workflow gives, and the comparison with what files say that they are.

By hand, all of these options can be left out: then a stage takes whatever model or data it is given.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from creditflow.core.errors import UserError
from creditflow.core.files import fingerprint
from creditflow.core.given import GIVEN_MODELS
from creditflow.core.identity import check_identity, make_again
from creditflow.core.run_memory import known_sha256
from creditflow.data.prepared import read_facts
from creditflow.models.storage import is_given, read_sidecar, sidecar_path
from creditflow.stages.command_line import json_object


def add_filing_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say under which names a result is filed."""
    parser.add_argument("--experiment", default="manual", help="name of the experiment that the result is filed under")
    parser.add_argument("--dataset-name", help="name of the data in the result; the data file's folder if absent")


def add_expected_data(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says which dataset the option --data must hold."""
    parser.add_argument("--expect-data", help="id of the dataset that --data must hold; any if absent")


def add_expected_model(parser: argparse.ArgumentParser, option: str = "model") -> None:
    """Adds the option that says what a model must be; `option` is the name of the option that names its file."""
    parser.add_argument(
        f"--expect-{option}",
        type=json_object,
        help=f'what --{option} must be, such as {{"experiment": "quick", "rule": "bp", "seed": 0}}; anything if absent',
    )


def dataset_name(args: argparse.Namespace) -> str:
    """Returns the name of the data in a result."""
    return str(args.dataset_name or args.data.parent.name)


def network_name(sidecar: Mapping[str, Any]) -> str:
    """Returns what records call a network: the variant of a population, or else the backbone."""
    spec = sidecar["spec"]
    return str(sidecar.get("population", GIVEN_MODELS if is_given(sidecar) else spec["backbone"]))


def check_data(args: argparse.Namespace) -> None:
    """Raises UserError if --data is not a prepared dataset, or not the one that --expect-data names."""
    if args.expect_data is not None:
        stated = read_facts(args.data).get("identity")
        check_identity(args.data, "the prepared form", stated, {"dataset": args.expect_data})


def check_model(path: Path, expected: Mapping[str, object] | None, data: Path | None = None) -> None:
    """Raises UserError if a model is not what is expected.

    Args:
        path: the model.
        expected: keys and values that its identity must have; None if nothing is expected.
        data: the prepared dataset that an expected model must have been trained on; None for any.
    """
    if not expected:
        return
    sidecar = read_sidecar(path)
    stated: Any = sidecar.get("identity")
    check_identity(sidecar_path(path), "the model", stated, expected)
    # The sidecar says the rule and the seed once more, and results are filed under these.
    repeated = {name: sidecar[name] for name in ("rule", "seed") if name in stated and name in sidecar}
    check_identity(sidecar_path(path), "the model", stated | repeated, expected)
    trained_on = _data_of(sidecar)
    if data is not None and trained_on is not None and trained_on != known_sha256(data):
        verb = "checked with" if is_given(sidecar) else "trained on"
        raise UserError(f"{path} was {verb} other data than {data} holds now; {make_again(path)}")
    made = sidecar.get("provenance")
    noted = made.get("config_hash") if isinstance(made, dict) else None
    if noted != fingerprint(sidecar.get("settings")):
        raise UserError(
            f"{sidecar_path(path)} does not say how the model was trained: its settings are not those whose hash its"
            f" provenance has; {make_again(path)}"
        )


def _data_of(sidecar: Mapping[str, Any]) -> str | None:
    """Returns the hash of the prepared dataset that a model was trained on; None if its sidecar does not say it."""
    settings = sidecar.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    training = settings.get("training", settings)  # a population's member tells the settings of its population
    return training.get("data") if isinstance(training, dict) else None
