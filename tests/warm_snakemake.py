"""Imported by the process that the tests' Snakemakes are forked from: what each of them would do alike is done once.

Snakemake looks for its plugins among all installed modules when it first makes its parser of arguments: a seventh of a
dry-run.
"""

import sys
from pathlib import Path

from snakemake.cli import get_argument_parser

get_argument_parser()
sys.path.remove(str(Path(__file__).parent))  # a user's Snakemake does not look for modules among the tests
