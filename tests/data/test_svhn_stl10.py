"""SVHN, STL-10 and MATLAB's format."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from creditflow.core.errors import UserError
from creditflow.data.formats import mat
from creditflow.data.formats.mat import read_mat
from formats import RNG, stl10, svhn
from helpers import ROOT
from preparing import Stages, check_refused


def cut(name: str, n: int) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({f"stl10_binary/{name}": members[f"stl10_binary/{name}"][n:]})


WRONG = {
    "svhn grey": ("svhn", lambda: svhn(lambda c: c.update(X=c["X"][:, :, :1])), r"X of shape \(32, 32, 1, 11\)"),
    "svhn floats": ("svhn", lambda: svhn(lambda c: c.update(X=c["X"] / 255)), "are not SVHN's"),
    "svhn label 11": (
        "svhn",
        lambda: svhn(lambda c: c.update(y=c["y"] + 1)),
        r"labels must lie in 1\.\.10, not 2\.\.11",
    ),
    "svhn label nan": ("svhn", lambda: svhn(lambda c: c.update(y=c["y"] * np.nan)), "are not SVHN's"),
    "svhn labels short": ("svhn", lambda: svhn(lambda c: c.update(y=c["y"][1:])), r"y of shape \(10, 1\)"),
    "svhn no y": ("svhn", lambda: svhn(lambda c: c.pop("y")), "train_32x32.mat has no y"),
    "stl10 label 0": (
        "stl10",
        lambda: stl10(lambda m: m.update({"stl10_binary/test_y.bin": bytes(range(10))})),
        "its test images or labels",
    ),
    "stl10 label 11": (
        "stl10",
        lambda: stl10(lambda m: m.update({"stl10_binary/test_y.bin": bytes(range(2, 12))})),
        "its test images or labels",
    ),
    "stl10 a pixel short": (
        "stl10",
        lambda: stl10(cut("train_X.bin", 1)),
        "its train images or labels are not STL-10's",
    ),
    "stl10 a label short": (
        "stl10",
        lambda: stl10(cut("train_y.bin", 1)),
        "its train images or labels are not STL-10's",
    ),
    "stl10 no labels": (
        "stl10",
        lambda: stl10(lambda m: m.pop("stl10_binary/train_y.bin")),
        "does not contain stl10_binary/train_y.bin",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_svhn_and_stl10_with_something_else_in_their_files_are_refused(case: str, stages: Stages) -> None:
    name, make, message = WRONG[case]
    check_refused(name, make()[0], message, stages)


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_are_read_as_scipy_writes_them(compressed: bool, tmp_path: Path) -> None:
    kinds = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
    content = {f"v{kind}": RNG.integers(0, 100, (2, 3, 4)).astype(kind) for kind in kinds}
    content |= {
        "text": "some text",
        "small": np.array([[7]], np.uint8),
        "empty": np.zeros((0, 3)),
        "other": np.array([["a", 1]], object),
    }
    structs = np.array(
        [(1.5, "one", None), (2.0, "two", None)],
        dtype=[("number", object), ("a_longer_name", object), ("inner", object)],
    )
    structs["inner"] = [{"deep": 1}, {"deep": 2}]
    scipy.io.savemat(tmp_path / "x.mat", content | {"structs": structs[:, np.newaxis]}, do_compression=compressed)
    variables = dict(zip(content, read_mat(tmp_path / "x.mat", list(content)), strict=True))
    for name, value in content.items():
        if name in ("text", "other"):
            assert variables[name] == (value if name == "text" else None)
        else:
            np.testing.assert_array_equal(variables[name], value, strict=True)
    (rows,) = read_mat(tmp_path / "x.mat", ["structs"])
    assert [(row["number"].item(), row["a_longer_name"], row["inner"]) for row in rows] == [
        (1.5, "one", None),
        (2.0, "two", None),
    ]
    with pytest.raises(UserError, match="has no missing"):
        read_mat(tmp_path / "x.mat", ["missing"])


def test_a_crash_of_the_reader_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy reads some damaged files where there is no memory."""
    (tmp_path / "x.mat").touch()
    monkeypatch.setattr(mat, "loadmat", lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(UserError, match=r"x\.mat is truncated or corrupt \(the reader crashes, or takes too long\)"):
        mat.read_mat(tmp_path / "x.mat", ["X"])


def test_a_variable_that_takes_too_much_memory_is_refused(tmp_path: Path) -> None:
    """In a process of its own, as memory that other tests have freed counts as held."""
    scipy.io.savemat(tmp_path / "x.mat", {"X": np.zeros(100 << 20, np.uint8)}, do_compression=True)
    assert (tmp_path / "x.mat").stat().st_size < 1 << 20
    code = (
        "from creditflow.data.formats import mat; from pathlib import Path;"
        " mat._MAX_MEMORY = 50 << 20; mat.read_mat(Path('x.mat'), ['X'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert re.search(r"UserError: .*x\.mat is truncated or corrupt \(MemoryError", done.stderr), done.stderr
