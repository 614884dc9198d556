"""Whether the words of an audit survive other seeds and other images: audits of parts of an experiment's records.

A verdict should not depend on which three of ten seeds were trained, nor on which half of the images was attacked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditflow.attacks.kinds import REQUIRED
from creditflow.core.errors import UserError
from creditflow.records.record import Record
from creditflow.verdict.cells import Plan, plan_of
from creditflow.verdict.verdicts import audit

#: The columns of an audit with its two words.
WORDS = ("claim_verdict", "net_effect")

#: The ways to take a part: all triples of seeds, random halves of the images, their first and their second half.
PARTS = ("triples", "halves", "fixed")

_TRIPLE = 3
_UNRESOLVED = "unresolved"
_PLACE = ["dataset", "backbone", "rule", "epsilon"]


def stability(
    records: Sequence[Record],
    settings: Mapping[str, Any],
    outcome: str = "correct",
    required: Sequence[str] = REQUIRED,
    *,
    halves: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares the words of an audit with those of audits of parts of its records.

    The parts are all triples of seeds, random halves of the images with all seeds, and the first and the second half of
    the images. A part contradicts the whole if both have a decided word and these differ. "Unresolved" contradicts
    nothing. What guards say was measured on all images of a record, and stays so in a half.

    Args:
        records: all records of the experiment.
        settings: the experiment's `audit` keys.
        outcome, required: as `audit` takes them.
        halves: number of random halves.
        seed: seed of the generator that draws them.

    Returns:
        A row per dataset, backbone, rule, epsilon and word ("claim_verdict" or "net_effect"). `whole` is the word of
        all records. For each of `PARTS`, `<part>_contradict` is the share of parts whose word contradicts it,
        `<part>_unresolved` the share of parts that are unresolved, and `<part>_n` the number of parts. Both shares are
        NaN where the whole itself is unresolved.

    Raises:
        UserError: if fewer than four seeds are those of all networks, and in the cases of `audit`.
    """
    plan = plan_of(settings, outcome, required)
    judged = partial(_words, settings=settings, outcome=outcome, required=required)
    whole = judged(records)
    parts = {
        "triples": [judged(part) for part in _triples(records, plan)],
        "halves": [judged(part) for part in _random_halves(records, plan, halves, seed)],
        "fixed": [judged(part) for part in _halves(records, plan, lambda images: np.arange(len(images)))],
    }
    rows = [
        dict(zip([*_PLACE, "word"], [*place, word], strict=True)) | {"whole": whole[place][word]} | shares
        for place in whole
        for word in WORDS
        for shares in [_shares(whole[place][word], {name: _of(words, place, word) for name, words in parts.items()})]
    ]
    return pd.DataFrame(rows)


def contradicts(whole: str, part: str) -> bool:
    """Returns whether two words are both decided and differ."""
    return whole != part and _UNRESOLVED not in (whole, part)


#: The two words of each comparison, by its place.
_Words = dict[tuple[Any, ...], dict[str, str]]


def _words(records: Sequence[Record], **how: Any) -> _Words:
    frame = audit(records, **how)
    compared = frame[frame.net_effect != ""]
    return {
        tuple(row[key] for key in _PLACE): {word: str(row[word]) for word in WORDS}
        for row in compared.to_dict("records")
    }


def _of(words: Sequence[_Words], place: tuple[Any, ...], word: str) -> list[str]:
    return [part[place][word] for part in words]


def _shares(whole: str, parts: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Returns the shares of parts that contradict a word, and that have none where the whole has one."""
    shares: dict[str, float] = {}
    for name, words in parts.items():
        contradicting, lost = [contradicts(whole, word) for word in words], [word == _UNRESOLVED for word in words]
        decided = whole != _UNRESOLVED
        shares[f"{name}_contradict"] = float(np.mean(contradicting)) if decided else float("nan")
        shares[f"{name}_unresolved"] = float(np.mean(lost)) if decided else float("nan")
        shares[f"{name}_n"] = len(words)
    return shares


def _triples(records: Sequence[Record], plan: Plan) -> Iterator[list[Record]]:
    """Yields the records of every triple of the seeds that all audited networks have."""
    by_network: dict[tuple[str, str, str], set[int]] = {}
    for record in filter(plan.uses, records):
        keys = record.keys
        by_network.setdefault((keys.dataset, keys.backbone, keys.rule), set()).add(keys.seed)
    seeds = set.intersection(*by_network.values())
    if len(seeds) <= _TRIPLE or any(seeds != known for known in by_network.values()):
        raise UserError(
            f"stability needs more than {_TRIPLE} seeds, the same for all networks; all networks have {sorted(seeds)}"
        )
    for triple in combinations(sorted(seeds), _TRIPLE):
        yield [record for record in records if record.keys.seed in triple]


def _random_halves(records: Sequence[Record], plan: Plan, count: int, seed: int) -> Iterator[list[Record]]:
    """Yields the records on one half of the images, for each of `count` random halves."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield next(_halves(records, plan, lambda images: rng.permutation(len(images))))


def _halves(records: Sequence[Record], plan: Plan, ordered: Any) -> Iterator[list[Record]]:
    """Yields the records on the first and on the second half of each network's images, in the order of `ordered`.

    Clean outcomes stay whole: the audit takes from them the images that attacks met.
    """
    images = {place: common[ordered(common)] for place, common in _images(records, plan).items()}
    for first in (True, False):
        kept = {}
        for place, shuffled in images.items():
            middle = len(shuffled) // 2
            kept[place] = np.sort(shuffled[:middle] if first else shuffled[middle:])
        yield [
            _on(record, kept[record.keys.dataset, record.keys.backbone], plan.outcome) if plan.uses(record) else record
            for record in records
        ]


def _images(records: Sequence[Record], plan: Plan) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Returns the sorted images that all attacks met, by dataset and backbone."""
    common: dict[tuple[str, str], set[int]] = {}
    for record in filter(plan.uses, records):
        place, examples = (record.keys.dataset, record.keys.backbone), set(record.outcomes["example"].tolist())
        common[place] = common.get(place, examples) & examples
    return {place: np.array(sorted(examples)) for place, examples in common.items()}


def _on(record: Record, images: NDArray[np.int64], outcome: str) -> Record:
    """Returns a record of an attack on some of its images."""
    kept = np.isin(record.outcomes["example"], images)
    outcomes = {"example": record.outcomes["example"][kept], outcome: record.outcomes[outcome][..., kept]}
    return replace(record, outcomes=outcomes)
