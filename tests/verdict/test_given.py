"""Audits of given models: the reference has any name, and what has no useful derivative is judged without one."""

from dataclasses import replace

import pytest

from audit_records import AUDIT, PLAIN, measured
from creditflow.records.record import Record
from creditflow.verdict.given import of_use
from creditflow.verdict.verdicts import audit

#: A network of steps: nothing can be climbed, so that attacks along the derivative leave every image as it is.
STEPS = {
    "pgd exact": 0.9,
    "apgd_dlr exact": 0.9,
    "pgd own": 0.15,
    "apgd_dlr own": 0.1,
    "square none": 0.3,
    "transfer surrogate:twin": 0.5,
    "transfer surrogate:other_seed": 0.6,
}


def checked(records: list[Record], verdict: str) -> list[Record]:
    """The records of a model of which `import_model` has said what its backward pass is worth."""
    facts = {"settings": {"backward_pass": verdict}}
    return [replace(each, content=each.content | (facts if each.keys.attack != "clean" else {})) for each in records]


@pytest.mark.parametrize(("verdict", "useless"), [("no useful gradient", True), ("surrogate", False)])
def test_a_model_without_a_useful_derivative_is_judged_by_other_attacks(verdict: str, useless: bool) -> None:
    """What these attacks find is an upper bound: it can take a claim away, but no claim rests on it."""
    guards = {name: {"zero_gradients": 1.0} for name in STEPS if name.endswith("exact")}
    records = checked(measured("steps", STEPS, checks=guards), verdict)
    plain = {**PLAIN, "pgd own": 0.1, "apgd_dlr own": 0.08}
    records += checked(measured("plain", plain), "honest")
    kept, impossible = of_use(records)
    assert impossible == ({"steps": ["scale_free"]} if useless else {})
    assert len(records) - len(kept) == (6 if useless else 0)
    frame = audit(kept, AUDIT | {"reference": "plain", "impossible": impossible}).set_index("rule")
    row = frame.loc["steps"]
    assert frame.loc["plain"].net_effect == "" and row.claim == "pgd own"
    assert row.decided_by == "apgd_dlr own"
    assert row.net_effect == "unresolved" and not row.sound
    assert ("only an upper bound" in row.reason) == useless
    assert ("no attack that the logits' scale can't blind without a fired guard" in row.reason) != useless
