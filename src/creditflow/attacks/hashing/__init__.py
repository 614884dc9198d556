"""Attacks on hash codes: one file each, which defines `ATTACK`; the file name is the attack's id."""
