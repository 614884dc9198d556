"""The audit on networks whose answer is known, with the attacks of every experiment that has an audit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audit_records import record
from creditflow.attacks.judge import Helpers, get_attack, run_attack
from creditflow.core import plugins
from creditflow.core.settings import parse
from creditflow.data.inputs import to_unit_interval
from creditflow.data.prepared import Subset
from creditflow.records.record import Record
from creditflow.verdict.verdicts import audit
from creditflow.workflow.loading import load_experiments
from known_networks import (
    AttackSet,
    Changed,
    Laboratory,
    attack_set,
    images_of_blocks_and_faint_pixels,
    trained,
)

N_SEEDS, N_IMAGES = 3, 80
FOLDER = Path(__file__).parents[2] / "config" / "experiments"


@pytest.fixture(scope="module")
def attack_sets() -> list[AttackSet]:
    """The attacks of all audits of classifiers; those of several experiments that are alike only once."""
    experiments = load_experiments(FOLDER)
    assert not experiments.broken
    chosen = {}
    for experiment in experiments.values():
        if "audit" in experiment.keys and "retrieval" not in experiment.keys:
            found = attack_set(experiment)
            chosen[repr((found.audit["claim"], found.of_rule, found.of_reference))] = found
    assert len(chosen) >= 3
    return list(chosen.values())


@pytest.fixture(scope="module")
def laboratory() -> Laboratory:
    plain, twins, equal = ([trained(first + seed) for seed in range(N_SEEDS)] for first in (0, 10, 20))
    networks = {
        "plain": plain,
        "equal": equal,
        "large logits": [Changed(model, scale=1e4) for model in plain],
        "small logits": [Changed(model, scale=1e-4) for model in plain],
        "no gradient": [Changed(model, tamper=torch.zeros_like) for model in plain],
        "random outputs": [Changed(model, noise=0.1) for model in plain],
        "robust": [trained(seed, adversarially=True) for seed in range(N_SEEDS)],
        "constant": [Changed(model, scale=0) for model in plain],
    }
    # No network is its own surrogate: what transfers has to transfer.
    surrogates = {"twin": twins, "other_seed": plain[1:] + plain[:1]}
    return Laboratory(images_of_blocks_and_faint_pixels(N_IMAGES, 1), networks, surrogates)


SAME, UNKNOWN = "no difference beyond 5 points", "unresolved"
ANY_BUT_HOLDS = {"no claim", "masked", "partly masked", "unresolved"}


#: Network, reference, what may become of the claim, net effects that are right, and a part of the reason.
KNOWN: list[tuple[str, str, set[str], set[str], str]] = [
    ("plain", "plain", {"no claim", "masked", "unresolved"}, {SAME}, ""),
    ("equal", "plain", ANY_BUT_HOLDS, {SAME, UNKNOWN}, ""),
    ("large logits", "plain", {"masked"}, {SAME}, ""),
    ("small logits", "plain", {"no claim", "masked", "unresolved"}, {SAME}, ""),
    ("no gradient", "plain", {"masked"}, {UNKNOWN}, "zero gradients"),
    ("random outputs", "plain", ANY_BUT_HOLDS, {UNKNOWN}, "the outputs are random"),
    ("robust", "plain", {"holds"}, {"more robust"}, ""),
    ("plain", "robust", {"no claim"}, {"less robust"}, ""),
    # The advantage over a robust network is 10 points, which 80 images cannot tell from the margin.
    ("large logits", "robust", {"masked", "unresolved"}, {"less robust"}, ""),
    ("plain", "constant", {UNKNOWN}, {UNKNOWN}, "points above chance"),
    ("robust", "constant", {UNKNOWN}, {UNKNOWN}, "points above chance"),
]


@pytest.mark.parametrize(
    ("network", "reference", "claims", "net_effects", "reason"),
    KNOWN,
    ids=[f"{network} against {reference}" for network, reference, *_ in KNOWN],
)
def test_the_words_are_right_with_the_attacks_of_every_experiment(
    laboratory: Laboratory,
    attack_sets: list[AttackSet],
    network: str,
    reference: str,
    claims: set[str],
    net_effects: set[str],
    reason: str,
) -> None:
    for attacks in attack_sets:
        records = laboratory.records(reference, attacks.of_reference, attacks.feedback, "bp")
        records += laboratory.records(network, attacks.of_rule, attacks.feedback, attacks.feedback)
        row = audit(records, attacks.audit).set_index("rule").loc[attacks.feedback]
        shown = f"{attacks.audit['attacks']}: {row.to_dict()}"
        assert row.claim_verdict in claims and row.net_effect in net_effects, shown
        assert reason in row.reason and row.scope == "any seed", shown


def of_a_single_network(rule: str, model: nn.Module, data: Subset, attacks: list[str]) -> list[Record]:
    records = []
    for name in attacks:
        attack, chosen = get_attack(name), torch.arange(len(data.labels))
        helpers = Helpers(surrogates={"twin": model} if attack.uses_surrogate else {})
        parameters = parse(plugins.settings_class("attack", name), {}, name)
        result = run_attack(
            attack, parameters, model, data, chosen, [LINEAR_EPSILON], batch_size=len(chosen), seed=0, helpers=helpers
        )
        gradient = "surrogate:twin" if attack.uses_surrogate else "exact"
        records.append(record(rule, 0, name, gradient, result.correct.numpy(), **result.checks))
    return [*records, record(rule, 0, "clean", "none", [result.clean_correct.numpy()], chance=0.5)]


LINEAR_EPSILON = 0.1


class Linear(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.weight
        return torch.stack([-score, score], 1)


def test_on_linear_classifiers_the_audit_states_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(60, 196, (60, 1, 4, 4), generator=generator, dtype=torch.uint8)
    x = to_unit_interval(images).flatten(1)
    teacher = torch.randn(16, generator=generator)
    teacher -= teacher.mean()
    data = Subset(images, (x @ teacher > 0).long(), ("0", "1"), (0.0,), (1.0,))
    records, expected = [], {}
    attacks = ["fgsm", "pgd", "apgd_ce", "transfer"]
    for rule, noise in (("bp", 0.4), ("other", 1.6)):
        weight = teacher + noise * torch.randn(16, generator=generator)
        weight -= weight.mean()
        margin = torch.where(data.labels == 1, x @ weight, -(x @ weight))
        expected[rule] = float((margin - LINEAR_EPSILON * weight.abs().sum() > 0).double().mean())
        records += of_a_single_network(rule, Linear(weight), data, attacks)
    frame = audit(records, {"epsilons": [LINEAR_EPSILON], "attacks": attacks, "claim": "pgd"})
    for row in frame.itertuples():
        assert row.worst == pytest.approx(expected[row.rule])
    for name in ("fgsm exact", "pgd exact", "apgd_ce exact", "transfer surrogate:twin"):
        assert list(frame[f"accuracy {name}"]) == pytest.approx(list(frame.worst))
    assert set(frame.guards) == {""} and set(frame.scope) == {"these networks only"}
