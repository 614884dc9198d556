"""The examples of README and of docs/start.md run as they stand."""

import json
import re
from pathlib import Path

import foolbox
import matplotlib.pyplot as plt
import pytest
import torch

from helpers import ROOT
from lies import ReversedGradient


def examples() -> list[str]:
    pages = [(ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/start.md")]
    return re.findall(r"```python\n(.*?)```", "\n".join(pages), re.DOTALL)


def test_a_model_of_your_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code of README with a small network, which lies about its gradient, and one that does not."""
    (code,) = [example for example in examples() if "cf.audit" in example]
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    plain, other = (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4)).eval() for _ in range(2))
    plain.append(ReversedGradient())
    images = torch.rand(24, 3, 4, 4)
    labels = plain(images).argmax(1)

    def any_attack(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        adversarial: torch.Tensor = foolbox.attacks.LinfPGD(steps=5)(wrapped, images, labels, epsilons=0.5)[1]
        return adversarial

    names = {"model": plain, "other": other, "images": images, "labels": labels, "any_attack": any_attack}
    exec(code, names)
    plt.close("all")
    report, result = names["report"], names["result"]
    assert report.verdict == "surrogate" and report.culprits == ["2"]  # type: ignore[attr-defined]
    # Through the reversed gradient PGD walks the wrong way and fools the network on no image.
    fooled = [plain(x).argmax(1) != labels for x in (names["adversarial"], any_attack(plain, images))]
    assert fooled[0].sum() >= 8 and not fooled[1].any()
    assert set(result.table.model) == {"mine", "reference"}  # type: ignore[attr-defined]
    assert str(result).strip() in capsys.readouterr().out
    assert (tmp_path / "audit/report.html").is_file()


def test_the_sample_of_a_verdict_is_what_the_tutorial_printed() -> None:
    (sample,) = re.findall(r"```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    notebook = json.loads((ROOT / "examples/audit_your_model.ipynb").read_text(encoding="utf-8"))
    printed = "".join(
        line for cell in notebook["cells"] for output in cell.get("outputs", []) for line in output.get("text", [])
    )
    assert sample.strip() in printed


def test_the_librarys_example() -> None:
    (code,) = [example for example in examples() if "apply_rule" in example]
    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(code, names)
    model, view = names["model"], names["view"]
    assert isinstance(model, torch.nn.Module) and isinstance(view, torch.nn.Module)
    assert next(model.parameters()) is next(view.parameters())
    gradient = model.get_parameter("fc.weight").grad
    assert gradient is not None and bool(gradient.any())


def test_pages_that_texts_name_are_there() -> None:
    """Help, messages and pages send readers to pages of docs/: none of them is missing."""
    texts = [path for folder in ("src", "docs", "config", "rules") for path in (ROOT / folder).rglob("*.*")]
    texts += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "Snakefile")]
    for path in texts:
        if path.suffix in (".py", ".md", ".yaml", ".smk", ""):
            pages = re.findall(r"\bdocs/[a-z_/-]+\.md", path.read_text(encoding="utf-8"))
            assert [page for page in pages if not (ROOT / page).is_file()] == [], path
