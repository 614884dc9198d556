"""Settings of attacks: one file each, named like the attack, without torch or foolbox."""
