"""Feedback rules: one file each, which defines `RULE`; the file name is the rule's id."""
