"""Attacks: one file each in `methods/`, one entry point that judges them all."""

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.evaluate import AttackResult, Helpers, choose_images, get_attack, run_attack

__all__ = ["Attack", "AttackResult", "Candidates", "Helpers", "Problem", "choose_images", "get_attack", "run_attack"]
