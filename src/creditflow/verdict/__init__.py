"""The robustness audit: statistics of paired outcomes, and the verdicts that rest on them."""
