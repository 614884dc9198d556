"""Plugins of other distributions: listed, checked and loaded as ours are, and part of what a result depends on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from creditflow import apply_rule
from creditflow.attacks.attack import Problem
from creditflow.attacks.judge import get_attack
from creditflow.compute.provenance import source_hash
from creditflow.core import entry_points, plugins
from creditflow.core.errors import UserError
from creditflow.reporting.names import display
from creditflow.workflow.dependence import Library
from creditflow.workflow.image_plugins import check_plugins
from creditflow.workflow.loading import load_experiment
from helpers import ROOT, small_model

RULE = (ROOT / "src/creditflow/feedback/rules/usf.py").read_text(encoding="utf-8")

#: An attack that makes images brighter; it reads one setting.
ATTACK = '''"""Makes images brighter."""

from creditflow.attacks.attack import Attack, Candidates
from outside_plugins.help import brighter


def _propose(problem, epsilons, settings):
    return Candidates([brighter(problem.images, settings.share * epsilon) for epsilon in epsilons])


ATTACK = Attack(norm="linf", propose=_propose, uses_gradient=False)
'''

SETTINGS = '''from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """How bright."""

    share: float = Field(1.0, ge=0, le=1)
    """Share of epsilon."""
'''

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution with a package `outside_plugins`, and returns the folder of the package."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "outside_plugins"]:
        monkeypatch.delitem(sys.modules, name)

    def installed(declared: str, distribution: str = "outside") -> Path:
        facts = tmp_path / f"{distribution}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8"
        )
        (facts / "entry_points.txt").write_text(declared, encoding="utf-8")
        package = tmp_path / "outside_plugins"
        (package / "settings").mkdir(parents=True, exist_ok=True)
        files = {
            "__init__.py": "IMPORTED = True\n",
            "steady.py": RULE,
            "bright.py": ATTACK,
            "help.py": "def brighter(images, size):\n    return (images + size).clamp(max=1)\n",
            "settings/__init__.py": "",
            "settings/bright.py": SETTINGS,
            "nothing.py": "",
            "broken.py": "import nothing_of_this_name\n",
        }
        for name, text in files.items():
            (package / name).write_text(text, encoding="utf-8")
        entry_points._entries.cache_clear()
        entry_points._plugin.cache_clear()
        return package

    return installed


BOTH = """
[creditflow.rules]
steady = outside_plugins.steady

[creditflow.attacks]
bright = outside_plugins.bright
"""


def test_plugins_from_outside_are_listed_without_importing_them(install: Install) -> None:
    install(BOTH)
    assert "steady" in plugins.names("rule") and "bright" in plugins.names("attack")
    assert plugins.docstring("attack", "bright") == "Makes images brighter."
    assert plugins.declared("attack", "bright", "norm") == "linf"
    assert plugins.assigns("rule", "steady", "RULE")
    assert "outside_plugins" not in sys.modules
    assert "steady" not in plugins.built_in_names("rule")


def test_a_rule_and_an_attack_from_outside_work_as_ours_do(install: Install) -> None:
    install(BOTH)
    model, images = small_model(), torch.rand(4, 1, 12, 12)
    gradients = []
    for rule in ("usf", "steady"):  # the file is the same
        view = apply_rule(model, rule, generator=torch.Generator().manual_seed(0))
        x = images.clone().requires_grad_()
        view(x).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    attack, settings = get_attack("bright"), plugins.settings_class("attack", "bright")(share=0.5)
    assert attack.name == "bright"
    problem = Problem(model, images, torch.zeros(4, dtype=torch.int64))
    assert torch.allclose(attack.propose(problem, [0.1], settings).images[0], (images + 0.05).clamp(max=1))


def test_results_depend_on_all_files_of_the_package(install: Install) -> None:
    before = source_hash.__wrapped__()
    package = install(BOTH)
    with_plugins = source_hash.__wrapped__()
    used = [("attack", "bright")]
    files = Library(ROOT / "src").depends_on("attack", used)
    assert {"outside:outside_plugins/bright.py", "outside:outside_plugins/help.py"} <= set(files)
    assert "creditflow/attacks/attack.py" in Library(ROOT / "src").depends_on("evaluate", used)  # by its import
    hashes = {Library(ROOT / "src").hash("attack", used)}
    for name in ("bright.py", "help.py", "settings/bright.py"):
        (package / name).write_text((package / name).read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
        hashes.add(Library(ROOT / "src").hash("attack", used))
    assert len(hashes) == 4
    assert len({before, with_plugins, source_hash.__wrapped__()}) == 3
    # What reads all rules, such as the table of rules, depends on those from outside, too.
    assert "outside:outside_plugins/steady.py" in Library(ROOT / "src").depends_on("make_table", [("table", "table1")])


@pytest.mark.parametrize(
    ("entry", "name", "message"),
    [
        ("usf = outside_plugins.steady", "usf", "brings a rule 'usf', but creditflow has one of this name; rename its"),
        ("steady = outside_plugins.absent", "steady", "there is no module outside_plugins.absent; install the"),
        ("steady = absent", "steady", "there is no module absent"),
        ("steady = outside_plugins.steady:RULE", "steady", "its entry point must be an identifier = a module, not"),
        ("steady = outside_plugins.nothing", "steady", "nothing.py must define RULE, as CONTRIBUTING.md shows"),
        ("steady = outside_plugins.broken", "steady", "cannot be imported (ModuleNotFoundError: No module named"),
    ],
)
def test_wrong_entry_points_are_one_line(install: Install, entry: str, name: str, message: str) -> None:
    install(f"[creditflow.rules]\n{entry}\n")
    assert plugins.load("rule", "frsf").RULE  # others are not concerned
    with pytest.raises(UserError) as raised:
        plugins.load("rule", name)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert "outside" in str(raised.value)


def test_two_distributions_of_one_name_and_an_unknown_name(install: Install) -> None:
    install(BOTH)
    install(BOTH, "another")
    with pytest.raises(
        UserError, match=r"rule 'steady' comes from (outside and another|another and outside); uninstall"
    ):
        plugins.load("rule", "steady")
    with pytest.raises(UserError, match=r"unknown rule 'stead'; did you mean 'steady'"):
        plugins.check("rule", "stead")


def test_listing_loads_neither_torch_nor_the_plugins(install: Install) -> None:
    package = install(BOTH)
    code = (
        "import sys; from creditflow.core import plugins\n"
        "assert 'steady' in plugins.names('rule') and plugins.settings_class('attack', 'bright')(share=1)\n"
        "assert not {'torch', 'numpy', 'snakemake'} & sys.modules.keys()"
    )
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{package.parent}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


EXPERIMENT = """
description: a rule and an attack of another distribution
datasets: {digits: {source: digits, classes: [0, 1]}}
backbones: [small_cnn]
rules: [bp, steady]
seeds: [0]
threads: 1
pretrain: {start: random}
finetune: {datasets: [digits], settings: {epochs: 1, batch_size: 32, learning_rate: 2.0e-3, head_learning_rate: 2.0e-2}}
gradients: [exact, feedback]
attacks: {bright: {epsilons: [0.1], images: 20, batch_size: 20, settings: {share: 0.5}}}
tables: {table1: {}}
figures: {figure2: {}}
"""


def test_an_experiment_takes_plugins_from_outside(install: Install, tmp_path: Path) -> None:
    install(BOTH)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/mine.yaml").write_text(EXPERIMENT, encoding="utf-8")
    experiment = load_experiment(tmp_path / "experiments", "mine")
    assert experiment.keys["attacks"]["bright"]["settings"] == {"share": 0.5}
    assert display("steady") == display("usf")  # the file is the same, and says how tables write it
    text = EXPERIMENT.replace("share: 0.5", "share: 2")
    (tmp_path / "experiments/mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="share must be at most 1"):
        load_experiment(tmp_path / "experiments", "mine")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, "the rule 'steady'"),
        (
            {"rules: [bp, steady]": "rules: [bp]", "exact, feedback": "exact, 'through:steady'", "bright: {": "fgsm: {"}
            | {", settings: {share: 0.5}": ""},
            "the rule 'steady'",
        ),
        ({"rules: [bp, steady]": "rules: [bp]", "exact, feedback": "exact"}, "the attack 'bright'"),
    ],
)
def test_a_container_image_has_a_plugin_from_outside_only_if_it_is_locked(
    install: Install, change: dict[str, str], what: str, tmp_path: Path
) -> None:
    install(BOTH)
    text = EXPERIMENT
    for old, new in change.items():
        text = text.replace(old, new)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/mine.yaml").write_text(text, encoding="utf-8")
    keys = load_experiment(tmp_path / "experiments", "mine").keys
    message = (
        f"experiment mine: {what} comes from the distribution outside, which the container image does not have; copy"
    )
    with pytest.raises(UserError, match=message):
        check_plugins(keys, "mine", ROOT / "envs")
    for name in ("requirements.txt", "requirements-source.txt", "requirements-torch.txt"):
        (tmp_path / name).write_text("Out_side==2.0 \\\n    --hash=sha256:0\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        check_plugins(keys, "mine", tmp_path)
    (tmp_path / "requirements-source.txt").write_text("Outside==1.0 \\\n    --hash=sha256:0\n", encoding="utf-8")
    check_plugins(keys, "mine", tmp_path)


def test_plugins_of_our_own_are_in_the_image() -> None:
    shipped = load_experiment(ROOT / "config/experiments", "quick")
    check_plugins(shipped.keys, "quick", ROOT / "envs")
