"""Models from text: a function in a file or module, a network of torchvision, or a file that holds a whole model."""

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from torch import nn

from creditflow.compute import randomness
from creditflow.core import files
from creditflow.core.errors import UserError, one_line, suggestion
from creditflow.core.factory import ModelSource, parse_source
from creditflow.models.model_files import READERS
from creditflow.models.torchvision_networks import torchvision_network
from creditflow.models.weights import check_sha256, put_weights, state_of

Result = TypeVar("Result")


def make_model(
    source: str, *, weights: Path | None = None, sha256: str | None = None, base: Path | None = None
) -> nn.Module:
    """Returns the model that a text names, in eval mode.

    Args:
        source: the text; `core.factory.parse_source` lists what it may be. A function is called without arguments. Its
            random numbers of torch are always the same ones, and the stream of the caller is left as it is.
        weights: a file of weights for it; see `weights.load_weights`. A network of torchvision then has as many outputs
            as the weights have.
        sha256: what the SHA-256 of that file must begin with, 8 hexadecimal digits or more. Without such a file it is
            that of the file that holds the whole model.
        base: the folder that relative paths start from, and in which modules are found; the working directory if None.

    Raises:
        UserError: the text names no model, or its function raises, needs arguments or returns no torch.nn.Module, or a
            file cannot be read, has another SHA-256, or does not fit.
    """
    parsed, base = parse_source(source), base or Path.cwd()
    path = None if weights is None else base / weights
    _check_files(parsed, path, sha256, base)
    state = None if path is None else state_of(path, sha256=sha256)
    whole = parsed.file(base)
    if parsed.kind == "torchvision":
        model = torchvision_network(parsed, state, path)
    elif parsed.kind in ("file", "module"):
        model = _from_function(parsed, base)
    else:
        assert whole is not None
        model = READERS[parsed.kind](whole)
    if state is not None and path is not None:
        put_weights(model, state, path)
    return model.eval()


def _check_files(source: ModelSource, weights: Path | None, sha256: str | None, base: Path) -> None:
    """Raises UserError for a file that is not there or not the one that is meant, and for weights that are too many."""
    whole = source.file(base)
    if whole is not None and not whole.is_file():
        raise UserError(f"{source.text}: there is no file {whole}; name an existing one")
    if weights is not None and source.weights is not None:
        raise UserError(f"{source.text} names published weights, and so does the file {weights}; leave one out")
    if sha256 is not None and weights is None:
        if whole is None or source.kind == "file":
            raise UserError(f"{source.text}: a SHA-256 is that of a file of weights; name this file, too")
        check_sha256(whole, sha256)


def _from_function(source: ModelSource, base: Path) -> nn.Module:
    """Returns what the function of a file or module returns."""
    folder = (base / files.as_path(source.place)).parent if source.kind == "file" else base
    with _importable(folder):
        with randomness.global_seed("factory", "import"):
            module = _file_module(source, base) if source.kind == "file" else _module(source)
        if not hasattr(module, source.function):
            functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            raise UserError(f"{source.place} has no {source.function!r}{suggestion(source.function, functions)}")
        made = getattr(module, source.function)
        return _checked(source, made if isinstance(made, nn.Module) else _called(source, made))


def _called(source: ModelSource, function: object) -> object:
    """Returns what a function without arguments returns. Raises UserError if it needs arguments, or raises."""
    if not callable(function):
        raise UserError(f"{source.text} is no function but {type(function).__name__}; name a function")
    if needed := _needed_arguments(function):
        raise UserError(
            f"{source.text} needs arguments ({', '.join(needed)});"
            " name a function without arguments that calls it with yours"
        )
    try:
        with randomness.global_seed("factory"):  # the same numbers whether the file was imported before or not
            return function()
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        raise UserError(f"{source.text} raised {type(error).__name__}: {_short(error)} ({where}); mend it") from error


def _needed_arguments(function: Callable[..., object]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # functions of C may have no signature
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in several]


def _checked(source: ModelSource, made: object) -> nn.Module:
    if isinstance(made, nn.Module):
        return made
    raise UserError(f"{source.text} returns {type(made).__name__}, not a torch.nn.Module; return the network")


def _module(source: ModelSource) -> ModuleType:
    return _imported(source, lambda: importlib.import_module(source.place))


def _file_module(source: ModelSource, base: Path) -> ModuleType:
    """Returns a Python file as a module. A file that is named twice, and did not change, is run once."""
    path = (base / files.as_path(source.place)).resolve()
    name = f"{path.stem}_{files.fingerprint([str(path), path.stat().st_mtime_ns])}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    loader, module = spec.loader, importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module there
    try:
        _imported(source, lambda: loader.exec_module(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _imported(source: ModelSource, run: Callable[[], Result]) -> Result:
    """Returns what an import returns. Raises UserError if it fails.

    It is tried twice where it fails because torchvision's wheel does not fit a torch without CUDA.
    """
    try:
        try:
            return run()
        except RuntimeError as error:
            if "torchvision::nms does not exist" not in str(error):
                raise
            importlib.import_module("creditflow.compute.torchvision_import")
            return run()
    except (Exception, SystemExit) as error:
        raise _import_error(source, error) from error


def _import_error(source: ModelSource, error: BaseException) -> UserError:
    if isinstance(error, SyntaxError):
        where = f" ({Path(error.filename or source.place).name}, line {error.lineno})"
        return UserError(f"{source.place} cannot be imported: {error.msg}{where}; mend it")
    return UserError(
        f"{source.place} cannot be imported: {type(error).__name__}: {_short(error)}; mend it, or install what it needs"
    )


def _short(error: BaseException) -> str:
    return one_line(error)[:300]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Lets Python find modules in a folder first, as it does for a script there; afterwards it finds them last."""
    place = str(folder.resolve())
    is_new = place not in sys.path
    if is_new:
        sys.path.insert(0, place)
    try:
        yield
    finally:
        if is_new:
            sys.path.remove(place)
            sys.path.append(place)  # a network may import more when it runs
