"""Settings of attacks on hash codes: one file each, named like the attack, without torch."""
