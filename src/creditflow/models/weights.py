"""Weights from files into any module: .safetensors, or what torch.save wrote, read without running code from it."""

import re
import sys
import zipfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from creditflow.core import files
from creditflow.core.errors import UserError, one_line

#: Keys under which training programs put the state dict beside other things (epoch, optimizer).
_NESTED = ("state_dict", "model_state_dict", "model", "net")
#: Beginnings of all names in the state dict of a module that was wrapped, and what wraps it.
_PREFIXES = {"module.": "torch.nn.DataParallel", "_orig_mod.": "torch.compile"}
#: The number of names that a message lists.
_NAMED = 3


def load_weights(model: nn.Module, path: Path, *, sha256: str | None = None) -> None:
    """Loads the weights in a file into a model, in place.

    Args:
        model: any module.
        path: a .safetensors file, or a file that torch.save wrote, with a state dict. The state dict may lie under
            "state_dict", "model_state_dict", "model" or "net", and all of its names may begin with "module."
            (DataParallel) or "_orig_mod." (torch.compile). Where that is so, a line on stderr says it.
        sha256: what the file's SHA-256 must begin with: 8 hexadecimal digits or more; None if it is not known.

    Raises:
        UserError: the file cannot be read, has another SHA-256, holds no tensors, or does not fit the model.
    """
    put_weights(model, state_of(path, sha256=sha256), path)


def put_weights(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Loads tensors from the file `path` into a model, as `load_weights` does. Raises UserError if they do not fit."""
    expected = model.state_dict()
    fitting = without_wrapper(state, expected, path)
    misfits = _other_shapes(fitting, expected) or _left_over(model, fitting, path)
    if misfits:
        raise UserError(
            f"{path} does not fit the model ({misfits}); give the weights of this architecture, or the function that"
            " makes the network of these weights"
        )


def state_of(path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """Returns the tensors of a file of weights by name, on the CPU. Raises UserError as `load_weights` does."""
    if sha256 is not None:
        check_sha256(path, sha256)
    if path.suffix.lower() == ".safetensors":
        return _safetensors(path)
    content = read_pickled(path, "save it anew with torch.save(model.state_dict(), ...), or as .safetensors")
    return _tensors(content, path)


def check_sha256(path: Path, wanted: str) -> None:
    """Raises UserError unless a file can be read and its SHA-256 begins with these hexadecimal digits."""
    check_digits(path, wanted)
    try:
        compare_digits(path, files.file_sha256(path), wanted)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name an existing file") from error


def check_digits(path: Path, wanted: str) -> None:
    """Raises UserError unless what the SHA-256 of a file should begin with is hexadecimal digits, 8 or more."""
    if not re.fullmatch(r"[0-9a-f]{8,64}", wanted):
        raise UserError(f"{path}: sha256 {wanted!r} is not 8 to 64 hexadecimal digits in lower case")


def compare_digits(path: Path, digits: str, wanted: str) -> None:
    """Raises UserError unless the SHA-256 of a file, as 64 digits, begins with the wanted digits."""
    if not digits.startswith(wanted):
        n = next(position for position in range(64) if digits[position] != wanted[position]) // 8 * 8 + 8
        raise UserError(
            f"{path} is truncated, corrupt or another file:"
            f" its SHA-256 begins with {digits[:n]}, not {wanted[:n]}; replace it"
        )


def read_pickled(path: Path, advice: str) -> Any:
    """Returns what torch.save wrote, if it is tensors and plain values. Nothing in the file can run code.

    Raises UserError, which ends with the advice, if the file cannot be read as that.
    """
    try:
        files.check_plain(path)
        _check_expansion(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; name an existing file of weights") from error
    except Exception as error:  # torch's reader fails in many ways on damaged files
        # The message of torch is not passed on: it tells how to read the file unsafely.
        raise UserError(f"{path} cannot be read as a state dict of tensors and nothing else; {advice}") from error


def _check_expansion(path: Path) -> None:
    """Raises ValueError for a file that would expand: torch writes its zip archives without compression."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("its members are compressed")


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(files.read_plain(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name an existing file of weights") from error
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file ({one_line(error)}); copy or save it again") from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Returns the state dict in what torch.save wrote, which may lie under one of the keys that programs use."""
    if _is_state(content):
        return dict(content)
    keys = [key for key in _NESTED if isinstance(content, Mapping) and _is_state(content.get(key))]
    if len(keys) == 1:
        _note(f"{path}: the weights are what it has under {keys[0]!r}")
        return dict(content[keys[0]])
    what = f"several ({', '.join(map(repr, keys))})" if keys else "none"
    raise UserError(
        f"{path} should hold one state dict (names and tensors), but holds {what};"
        " save it anew with torch.save(model.state_dict(), ...)"
    )


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(tensor, Tensor) for tensor in value.values())


def without_wrapper(state: Mapping[str, Tensor], expected: Container[str], path: Path) -> dict[str, Tensor]:
    """Returns a state dict without the prefix of a wrapper that the model does not have; a line on stderr says so.

    Args:
        state: tensors by name.
        expected: the names in the model's own state dict.
        path: the file of the weights, for the line.
    """
    names = dict(state)
    for prefix, wrapper in _PREFIXES.items():
        bare = {name.removeprefix(prefix): tensor for name, tensor in names.items() if name.startswith(prefix)}
        if names and len(bare) == len(names) and not any(name in expected for name in names):
            _note(f"{path}: its names begin with {prefix!r} (of {wrapper}), which is left out")
            names = bare
    return names


def _other_shapes(state: Mapping[str, Tensor], expected: Mapping[str, Any]) -> str:
    """Returns which tensors have another shape than the model's, in words; nothing if there is none."""
    shapes = [
        f"{name} is {tuple(tensor.shape)} in the file and {tuple(expected[name].shape)} in the model"
        for name, tensor in state.items()
        if isinstance(expected.get(name), Tensor) and expected[name].shape != tensor.shape
    ]
    return f"other shapes: {_some(shapes)}" if shapes else ""


def _left_over(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> str:
    """Loads the tensors and returns which names are missing or not the model's, in words; nothing if all fit."""
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except Exception as error:  # a module may have a loading of its own
        raise UserError(f"{path} cannot be loaded into the model ({one_line(error)[:200]})") from error
    words = [f"{what}: {_some(names)}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names]
    return "; ".join(words)


def _some(names: Sequence[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr, flush=True)
