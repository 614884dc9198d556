"""The archive of trained networks: what is in it, that it is the same each time, and what is refused."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from scipy.stats import beta

from creditflow.core.errors import UserError
from creditflow.core.files import file_sha256, write_sealed_json
from creditflow.models.build import ModelSpec, build_model
from creditflow.models.storage import load_feedback, load_model, save_model
from creditflow.reporting.finished import Finished
from creditflow.reporting.release import Released, write_release
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.finished import finished
from creditflow.workflow.loading import load_experiments
from finished_experiment import TINY, made
from helpers import ROOT, stage


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return load_experiments(tmp_path / "experiments")["tiny"]


def test_the_archive_holds_networks_that_load_and_say_what_they_are(experiment: Experiment, tmp_path: Path) -> None:
    made(tmp_path, experiment)
    archives = [tmp_path / "dist/models.tar", tmp_path / "again/models.tar"]
    for archive in archives:
        options = ["--networks", "tiny:1", "--experiments", tmp_path / "experiments", "--results", tmp_path / "results"]
        done = stage("release", *options, "--output", archive)
        assert done.returncode == 0, done.stderr
    assert archives[0].read_bytes() == archives[1].read_bytes()
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", archives[0], "-C", tmp_path / "unpacked"], check=True)
    folder = tmp_path / "unpacked/models"
    sums = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in sums)}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files - {"SHA256SUMS"} == listed.keys()
    assert {name: file_sha256(folder / name) for name in listed} == listed
    stems = {f"tiny/digits/small_cnn/{rule}/seed1" for rule in ("bp", "frsf")}
    suffixes = (".safetensors", ".feedback.safetensors", ".json", ".md")
    assert files == {f"{stem}{suffix}" for stem in stems for suffix in suffixes} | {
        "README.md",
        "LICENSE",
        "SHA256SUMS",
    }
    stem = "digits/small_cnn/frsf/seed1.safetensors"
    first, second = (load_model(where / stem) for where in (folder / "tiny", tmp_path / "results/tiny/finetune"))
    for name, tensor in second.state_dict().items():
        assert torch.equal(first.state_dict()[name], tensor)
    assert load_feedback(folder / "tiny" / stem)[0] == "frsf"
    assert not any(b"secret" in (folder / name).read_bytes() for name in files)


def test_the_card_says_what_the_records_say(experiment: Experiment, tmp_path: Path) -> None:
    made(tmp_path, experiment)
    write_release([Released(finished(experiment, tmp_path / "results"))], tmp_path / "m.tar", "2", ROOT / "LICENSE")
    with tarfile.open(tmp_path / "m.tar") as tar:
        texts = {name: tar.extractfile(name) for name in tar.getnames() if name.endswith(".md")}
        cards = {name: file.read().decode() for name, file in texts.items() if file}
    card, reference = (cards[f"m/tiny/digits/small_cnn/{rule}/seed0.md"] for rule in ("frsf", "bp"))

    def interval(right: int) -> str:
        """Clopper and Pearson's of 19 outcomes: the variance of 20 images' mean is estimated with 19 degrees."""
        share = right / 20
        low, high = beta.ppf(0.025, 19 * share, 20 - 19 * share), beta.ppf(0.975, 19 * share + 1, 19 - 19 * share)
        return f"{5 * right:.1f} ({100 * low:.1f} to {100 * high:.1f})"

    for text in (
        ", frSF, seed 0\n",
        "One network of the experiment `tiny`: two rules, made up.",
        "| PGD, own feedback weights | " + interval(18) + " |",
        "| worst case | " + interval(4) + " |",
        "batch_size 8, epochs 1, learning_rate 0.1",
        "| Start | random weights |",
        "commit c0ffee, sources aaaa",
        "Its words hold for these networks only",
        'load_model("seed0.safetensors")',
        file_sha256(tmp_path / "results/tiny/finetune/digits/small_cnn/frsf/seed0.safetensors"),
    ):
        assert text in card
    assert "| 0.1 | masked | unresolved | yes | " in card
    assert "BP is the reference" in reference and "own feedback weights |" not in reference
    assert len(cards) == 5 and cards["m/README.md"].count("| `tiny` |") == 4


def listed(path: Path) -> None:
    path.write_text("[1]", encoding="utf-8")


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-min(20, len(content))] ^= 1
    path.write_bytes(content)


def retrained(path: Path) -> None:
    """Puts another network of the same name in the place of a network."""
    sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    facts = {key: sidecar[key] for key in ("identity", "provenance", "run", "settings", "rule")}
    save_model(path, build_model(ModelSpec("small_cnn", (1, 8, 8), 10, (0.3,), (0.2,)), "test", 9), **facts)


def unsealed(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"rule": "usf"}), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("audit.parquet", Path.unlink, r"audit\.parquet missing; run `snakemake --cores all tiny` first"),
        ("audit.parquet", damaged, "is not an audit"),
        ("evaluate/digits/small_cnn/bp/seed0.json", Path.unlink, r"seed0\.json missing; run"),
        ("evaluate/digits/small_cnn/bp/seed0.json", unsealed, "is damaged or was edited"),
        ("finetune/digits/small_cnn/bp/seed0.json", Path.unlink, r"seed0\.json is missing; run"),
        ("finetune/digits/small_cnn/bp/seed0.json", unsealed, "is damaged or was edited"),
        ("finetune/digits/small_cnn/bp/seed0.safetensors", Path.unlink, r"seed0\.safetensors is missing; copy it"),
        ("finetune/digits/small_cnn/bp/seed0.json", listed, "seed0.json"),
        ("finetune/digits/small_cnn/bp/seed0.safetensors", damaged, "is damaged or not the file that its sidecar"),
        ("finetune/digits/small_cnn/bp/seed0.feedback.safetensors", damaged, "is damaged or not the file"),
        ("finetune/digits/small_cnn/bp/seed0.safetensors", retrained, "is not the model that the records of .* were"),
    ],
)
def test_what_is_missing_damaged_or_of_another_network_is_refused(
    experiment: Experiment, tmp_path: Path, name: str, change: Callable[[Path], None], message: str
) -> None:
    made(tmp_path, experiment)
    change(tmp_path / "results/tiny" / name)
    refused(tmp_path, finished(experiment, tmp_path / "results"), message)


def refused(folder: Path, experiment: Finished, message: str, seeds: list[int] | None = None) -> None:
    with pytest.raises(UserError, match=message) as caught:
        write_release([Released(experiment, seeds)], folder / "new/models.tar", "2", ROOT / "LICENSE")
    assert "\n" not in str(caught.value) and not (folder / "new").exists()


def test_mixed_sources_and_wrong_requests_are_refused(experiment: Experiment, tmp_path: Path) -> None:
    refuse = partial(refused, tmp_path, finished(experiment, tmp_path / "results"))
    made(tmp_path, experiment, {"bp": "aaaa", "frsf": "bbbb"}.__getitem__)
    refuse("records of tiny were made by 2 versions of the sources; make them again")
    shutil.rmtree(tmp_path / "results")
    made(tmp_path, experiment, trained="bbbb")
    refuse("networks of tiny were made by 2 versions of the sources; make them again")
    refuse("tiny has no fine-tuned network of seed 7; it has 0, 1", [7])
    for path in (tmp_path / "results/tiny/finetune").rglob("*.json"):
        write_sealed_json(path, {"identity": {"stage": "pretrain"}})
    refuse("tiny has no fine-tuned network; name an experiment that fine-tunes")
    without = finished(experiment, tmp_path / "results")
    object.__setattr__(without, "audit", None)
    refused(tmp_path, without, "tiny has no audit")


def test_the_name_of_the_archive_is_checked(tmp_path: Path) -> None:
    done = stage("release", "--output", tmp_path / "models.zip")
    assert done.returncode == 2 and "does not end in .tar" in done.stderr
