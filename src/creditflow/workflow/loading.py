"""Loads and checks experiments. A broken experiment blocks itself only: the others are loaded, and its error is
kept."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from creditflow.core.errors import UserError, suggestion
from creditflow.core.files import is_left_behind
from creditflow.core.merging import merged
from creditflow.core.settings import parse
from creditflow.workflow.attack_consistency import check_attacks
from creditflow.workflow.consistency import check_keys, check_lender, check_training
from creditflow.workflow.effects import check_all_effects
from creditflow.workflow.experiment_model import ExperimentKeys
from creditflow.workflow.experiments import Experiment, Experiments
from creditflow.workflow.given_models import with_given_models
from creditflow.workflow.layout import RESERVED
from creditflow.workflow.plugin_settings import check_settings
from creditflow.workflow.published_hyperparameters import fill_in
from creditflow.workflow.yaml_files import read_mapping

_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


def load_experiments(folder: Path) -> Experiments:
    """Loads and checks every `*.yaml` of a folder; the file name is the experiment's name. Hidden files are left out.

    Raises UserError only if there is no such file. The error of an experiment that is not sound is in
    `Experiments.broken`.
    """
    loader = _Loader(folder)
    if not loader.files:
        hint = f"; {_misnamed(loader.misnamed[0])}" if loader.misnamed else ""
        raise UserError(f"{folder} has no experiments (*.yaml){hint}")
    sound: dict[str, Experiment] = {}
    broken = {path.stem: _misnamed(path) for path in loader.misnamed}
    for name in loader.files:
        try:
            sound[name] = loader.experiment(name)
        except UserError as error:
            where = "" if loader.files[name].name in str(error) else f"{loader.files[name]}: "
            broken[name] = f"{where}{error}"
    return Experiments(sound, broken)


def load_experiment(folder: Path, name: str) -> Experiment:
    """Loads and checks one experiment, and those that it extends or borrows models from. Other files of the folder
    are not read.

    Raises UserError if there is no such experiment, or if it is not sound.
    """
    loader = _Loader(folder)
    if name not in loader.files:
        for path in loader.misnamed:
            if name in (path.stem, path.name):
                raise UserError(_misnamed(path))
        raise UserError(f"unknown experiment {name!r}{suggestion(name, list(loader.files))}")
    return loader.experiment(name)


def _misnamed(path: Path) -> str:
    return f"{path}: files of experiments end in .yaml; rename it to {path.stem}.yaml"


class _Loader:
    """The experiments of a folder. Each file is read and checked once, when it is asked for."""

    def __init__(self, folder: Path) -> None:
        # A folder or a link to nothing with such a name is an experiment that is broken, and a line says so.
        self.files = {path.stem: path for path in sorted(folder.glob("*.yaml")) if not is_left_behind(path.name)}
        others = [path for path in sorted(folder.glob("*.yml")) if not is_left_behind(path.name)]
        self.misnamed = [path for path in others if path.stem not in self.files]
        self._read: dict[str, dict[str, Any] | UserError] = {}
        self._checked: dict[str, dict[str, Any] | UserError] = {}
        self._complete: dict[str, UserError | None] = {}

    def experiment(self, name: str) -> Experiment:
        """Returns an experiment. Raises UserError if it, or one that it extends or borrows models from, is not
        sound."""
        keys = self._keys(name)
        if name not in self._complete:
            self._complete[name] = None  # an experiment may borrow from one that extends it
            try:
                self._check_others(name, keys)
            except UserError as error:
                self._complete[name] = error
        if (mistake := self._complete[name]) is not None:
            raise UserError(str(mistake))
        return Experiment(name, keys)

    def _check_others(self, name: str, keys: Mapping[str, Any]) -> None:
        """Checks the experiments that one extends and borrows pretrained models from."""
        where = str(self.files[name])
        if "extends" in keys:
            self._need(keys["extends"], f"{where}: extends")
        lender = keys.get("pretrain", {}).get("experiment")
        if lender is not None:
            place = f"{where}: pretrain.experiment"
            self._need(lender, place)
            check_lender(keys, lender, self._keys(lender), place)

    def _need(self, name: str, place: str) -> None:
        if name not in self.files:
            raise UserError(f"{place}: unknown experiment {name!r}{suggestion(name, list(self.files))}")
        try:
            self.experiment(name)
        except UserError as error:
            raise UserError(f"{place}: {name!r} is broken ({error})") from None

    def _keys(self, name: str) -> dict[str, Any]:
        """Returns the checked keys of an experiment, with those that it takes from others."""
        return _remembered(self._checked, name, self._check)

    def _check(self, name: str) -> dict[str, Any]:
        where = str(self.files[name])
        if name in RESERVED or name.startswith("prefetch_") or not _NAME.fullmatch(name):
            rename = "rename the file (lower-case words joined by _)"
            raise UserError(f"{where}: an experiment cannot be called {name!r}; {rename}")
        keys = self._extended(name, ())
        parse(ExperimentKeys, keys, where)
        check_training(keys, where)
        keys = with_given_models(fill_in(keys, where), where)
        check_keys(keys, where)
        check_settings(Experiment(name, keys), where)
        check_attacks(keys, where)
        check_all_effects(Experiment(name, keys), _remembered(self._read, name, self._content), where)
        return keys

    def _extended(self, name: str, seen: tuple[str, ...]) -> dict[str, Any]:
        """Returns the keys of a file, merged over those of the experiment that it extends. `seen` are the names
        that led here."""
        keys, place = _remembered(self._read, name, self._content), f"{self.files[name]}: extends"
        base = keys.get("extends")
        if base is None:
            return keys
        if not isinstance(base, str):
            raise UserError(f"{place}: {base!r} is not the name of an experiment")
        if base in (*seen, name):
            raise UserError(f"{place}: {base!r} leads back to itself")
        if base not in self.files:
            raise UserError(f"{place}: unknown experiment {base!r}{suggestion(base, list(self.files))}")
        try:
            below = self._extended(base, (*seen, name))
        except UserError as error:
            raise UserError(f"{place}: {base!r} is broken ({error})") from None
        return merged(below, keys)

    def _content(self, name: str) -> dict[str, Any]:
        path = self.files[name]
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "no regular file"
            raise UserError(f"{path}: this is {what}; take it away, or put an experiment there")
        return read_mapping(path)


def _remembered(known: dict[str, Any], name: str, make: Any) -> dict[str, Any]:
    """Returns what `make(name)` returned when it was first called, or raises what it raised."""
    if name not in known:
        try:
            known[name] = make(name)
        except UserError as error:
            known[name] = error
    if isinstance(known[name], UserError):
        raise UserError(str(known[name]))
    keys: dict[str, Any] = known[name]
    return keys
