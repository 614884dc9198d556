"""SDHA with 100 iterations, twenty times as many as the sign-symmetry paper gives it.

Where SDHA with five iterations fails and this attack succeeds, the five iterations were too few.
"""

from creditflow.attacks.hash_attack import HashAttack
from creditflow.attacks.hashing.sdha import propose

ATTACK = HashAttack(norm="linf", uses_gradient=True, propose=propose)
