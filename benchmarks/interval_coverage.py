"""How often the audit errs: coverage of its intervals and false verdicts, in a simulation whose truth is known.

    python benchmarks/interval_coverage.py [--repeats N] [--table FILE] [--cell SEEDS IMAGES SPREAD]

Outcomes come from a threshold model. A model is right on an image if its skill, plus what its seed adds, less the
difficulty of the image (for all models, and for this rule alone) plus noise, is above zero; all parts are normal. The
spread of seeds is the standard deviation of a seed's accuracy, in points, for each rule by itself. A family is eight
rules that are compared with one reference. A verdict is false if it names a difference where there is none, names the
wrong sign, or says that there is none beyond the margin where it is as large as the margin.

The last line is one JSON object {name: number}, in percent: the worst cells of the table.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from creditflow.core.files import write_atomically
from creditflow.stages.command_line import positive
from creditflow.verdict.statistics import clopper_pearson, effective_size, moments
from creditflow.verdict.words import ALPHA

#: Standard deviations of an image's difficulty for all rules and for one rule; that of the noise is 1.
SHARED, ALONE = 1.5, 0.5
MARGIN = 0.05
SEEDS = (2, 3, 5, 10)
IMAGES = (100, 300, 1000)
SPREADS = (0.0, 0.02, 0.05, 0.10)

#: Differences to the reference, whose accuracy is 30%: none, all as large as the margin, some of each.
FAMILIES = {
    "equal": (0.0,) * 8,
    "mixed": (0.0, 0.0, 0.0, 0.0, MARGIN, MARGIN, -MARGIN, 2 * MARGIN),
    "at the margin": (MARGIN,) * 8,
}
BASE = 0.30
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


@lru_cache
def skill(accuracy: float, spread: float) -> tuple[float, float]:
    """Returns the skill of a model, and the standard deviation of what its seeds add, on the latent scale.

    The mean accuracy over all seeds and images is `accuracy`, and its standard deviation over seeds is `spread`.
    """
    latent = np.sqrt(1 + SHARED**2 + ALONE**2)

    def excess(seeds: float) -> float:
        mean = ndtri(accuracy) * np.sqrt(latent**2 + seeds**2)
        of_seeds = ndtr((mean + seeds * _NODES) / latent)
        weights = _WEIGHTS / _WEIGHTS.sum()
        return float(np.sqrt((weights * (of_seeds - accuracy) ** 2).sum())) - spread

    seeds = 0.0 if spread == 0 else float(brentq(excess, 0, 20))
    return float(ndtri(accuracy) * np.sqrt(latent**2 + seeds**2)), seeds


def latents(rng: np.random.Generator, shape: tuple[int, int, int], n_rules: int) -> Iterator["Latent"]:
    """Yields the latent quality of rules on the same images, for shapes (repeats, seeds, images)."""
    repeats, n_seeds, n_images = shape

    def normal(*size: int) -> NDArray[np.float32]:
        return rng.standard_normal(size, dtype=np.float32)

    difficulty = SHARED * normal(repeats, 1, n_images)
    for _ in range(n_rules):
        yield Latent(normal(*shape) + difficulty + ALONE * normal(repeats, 1, n_images), normal(repeats, n_seeds, 1))


@dataclass(frozen=True)
class Latent:
    """A rule without its skill: `images` (repeats, seeds, images), and what its seeds add (repeats, seeds, 1)."""

    images: NDArray[np.float32]
    seeds: NDArray[np.float32]

    def outcomes(self, accuracy: float, spread: float) -> NDArray[np.float32]:
        """Returns zeros and ones (repeats, seeds, images) of a rule with this accuracy and spread of its seeds."""
        mean, seeds = skill(accuracy, spread)
        return (self.images > -(np.float32(mean) + np.float32(seeds) * self.seeds)).astype(np.float32)


def coverage(rng: np.random.Generator, shape: tuple[int, int, int], spread: float) -> dict[str, NDArray[np.bool_]]:
    """Returns whether the intervals (repeats,) of an accuracy, a difference and a lost share contain the truth."""
    truth = (BASE, 0.55, 0.40)
    reference, claim, worst = (
        latent.outcomes(accuracy, spread) for latent, accuracy in zip(latents(rng, shape, 3), truth, strict=True)
    )
    single, compared = moments(reference), moments(worst - reference)
    low, high = clopper_pearson(single.value, effective_size(single, bounded=True))
    # The true share is 0.6: the claim's difference is 0.25, that of the worst case 0.10. Fieller's interval contains it
    # if what is left at this share does not differ from zero.
    left = moments((worst - reference) - np.float32(0.4) * (claim - reference))
    return {
        "accuracy": (low <= BASE) & (high >= BASE),
        "difference": abs(compared.value - 0.10) <= compared.half_width(),
        "lost share": abs(left.value) <= left.half_width(),
    }


def false_words(
    rng: np.random.Generator, shape: tuple[int, int, int], spread: float, families: Mapping[str, Sequence[float]]
) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.float64]]]:
    """Returns whether each family (repeats,) has a false word about net effects, and its share of resolved ones."""
    n_rules = len(next(iter(families.values())))
    first, *others = latents(rng, shape, n_rules + 1)
    reference = first.outcomes(BASE, spread)
    counts = {name: (np.zeros(shape[0], dtype=bool), np.zeros(shape[0])) for name in families}
    for index, latent in enumerate(others):
        words = {
            effect: judged(latent.outcomes(BASE + effect, spread) - reference, effect, n_rules)
            for effect in {effects[index] for effects in families.values()}
        }
        for name, effects in families.items():
            false, resolved = words[effects[index]]
            counts[name] = (counts[name][0] | false, counts[name][1] + resolved / n_rules)
    return counts


def judged(
    differences: NDArray[np.float32], effect: float, n_rules: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns whether the words (repeats,) about a net effect are false, and whether there are any."""
    compared = moments(differences)
    family, single = compared.cautious_half_width(1 - ALPHA / n_rules), compared.half_width()
    equal = abs(compared.value) + family < MARGIN
    differs = ~equal & (abs(compared.value) > np.maximum(family, single))
    false = (equal & (abs(effect) >= MARGIN)) | (differs & (np.sign(compared.value) != np.sign(effect)))
    return false, equal | differs


def cell(
    n_seeds: int, n_images: int, spread: float, repeats: int, families: Mapping[str, Sequence[float]] = FAMILIES
) -> dict[str, float]:
    """Returns the percentages of one cell of the table, from at least `repeats` simulated families.

    Coverage comes from four times as many audits, because it is compared with narrower limits.
    """
    rng = np.random.default_rng([n_seeds, n_images, round(1000 * spread)])
    shape = (max(1, min(repeats, 2_000_000 // (n_seeds * n_images))), n_seeds, n_images)
    n_batches = -(-repeats // shape[0])
    parts: dict[str, list[float]] = {}
    for _ in range(4 * n_batches):
        for name, covered in coverage(rng, shape, spread).items():
            parts.setdefault(name, []).append(covered.mean())
    for _ in range(n_batches if families else 0):
        for name, (false, resolved) in false_words(rng, shape, spread, families).items():
            parts.setdefault(f"false, {name}", []).append(false.mean())
            parts.setdefault(f"resolved, {name}", []).append(resolved.mean())
    return {name: 100 * float(np.mean(values)) for name, values in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=positive, default=3000, help="families in the largest cells")
    parser.add_argument("--table", type=Path, help="Markdown file to write the table to")
    parser.add_argument(
        "--cell", type=float, nargs=3, metavar=("SEEDS", "IMAGES", "SPREAD"), help="one cell alone; SPREAD in points"
    )
    args = parser.parse_args()
    rows = []
    chosen = (
        [(int(args.cell[0]), int(args.cell[1]), args.cell[2] / 100)] if args.cell else product(SEEDS, IMAGES, SPREADS)
    )
    for n_seeds, n_images, spread in chosen:
        row = {"seeds": n_seeds, "images": n_images, "spread": f"{100 * spread:g}"}
        repeats = max(args.repeats, 2000 * args.repeats // (n_seeds * n_images))  # small cells cost little
        row |= {name: f"{value:.1f}" for name, value in cell(n_seeds, n_images, spread, repeats).items()}
        print(row, flush=True)
        rows.append(row)
    frame = pd.DataFrame(rows)
    if args.table:
        write_atomically(args.table, (frame.to_markdown(index=False, disable_numparse=True) + "\n").encode())
    numbers = frame.astype(float)
    worst = {}
    for n_seeds, part in numbers.groupby("seeds"):
        covered = part[["accuracy", "difference", "lost share"]]
        false = part[[f"false, {name}" for name in FAMILIES]]
        worst |= {f"{n_seeds:g}_least_coverage": covered.min().min(), f"{n_seeds:g}_most_coverage": covered.max().max()}
        worst |= {f"{n_seeds:g}_false_families": false.max().max()}
    print(json.dumps(worst))


if __name__ == "__main__":
    main()
