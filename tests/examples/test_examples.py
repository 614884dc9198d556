"""The examples run as they stand, and the notebook is the script."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from helpers import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_the_script(path: Path) -> None:
    script = path.with_suffix(".py")
    notebooks = nbformat.read(path, as_version=4), jupytext.read(script)
    cells, wanted = ([(cell.cell_type, cell.source) for cell in notebook.cells] for notebook in notebooks)
    assert cells == wanted, "`make notebooks` writes the notebooks anew"
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as all tests
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel shows pictures with its own
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "surrogate" in printed and "masked" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
