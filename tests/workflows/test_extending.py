"""A new rule, dataset, backbone, attack, table or figure is a file and a line in an experiment (CONTRIBUTING.md)."""

import re
from pathlib import Path

import pandas as pd
import pytest

from helpers import ROOT, project, snakemake

pytestmark = pytest.mark.slow

#: CONTRIBUTING.md shows these files; each code block begins with a comment that names its file.
EXAMPLES = re.findall(
    r"```python\n# (src/creditflow/\S+\.py)\n(.*?)```",
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    re.DOTALL,
)

EXPERIMENT = """
description: one of each kind, straight from CONTRIBUTING.md
datasets:
  stripes: {source: stripes}
backbones: [two_layers]
rules: [bp, isf]
seeds: [0]
threads: 1
pretrain: {dataset: stripes, settings: {epochs: 2, batch_size: 20, learning_rate: 1.0e-2}}
finetune: {datasets: [stripes], settings: {epochs: 2, batch_size: 20, learning_rate: 1.0e-2}}
gradients: [exact, feedback]
attacks:
  noise: {epsilons: [0.1, 0.5], images: 20, batch_size: 10, settings: {draws: 3}}
tables: {noise: {epsilon: 0.5}, overview: {epsilon_linf: 0.5, epsilon_l2: 1}}
figures: {clean: {}}
"""


def test_the_examples_of_contributing_run(tmp_path: Path) -> None:
    assert {Path(path).parent.name for path, _ in EXAMPLES} == {
        "rules",
        "datasets",
        "backbones",
        "methods",
        "settings",
        "tables",
        "figures",
    }
    folder = project(tmp_path, extended=EXPERIMENT)
    for path, text in EXAMPLES:
        assert not (folder / path).exists()
        (folder / path).write_text(text, encoding="utf-8")
    done = snakemake(folder, "extended")
    assert done.returncode == 0, done.stdout
    frame = pd.read_parquet(folder / "results/extended/records.parquet")
    assert set(frame.rule) == {"bp", "isf"}
    assert set(frame.attack) == {"clean", "noise"}
    assert (frame[frame.metric == "accuracy"].value > 0.8).all()
    assert "iSF" in (folder / "results/extended/tables/noise.md").read_text(encoding="utf-8")
    assert (folder / "results/extended/figures/clean.png").stat().st_size > 1000
