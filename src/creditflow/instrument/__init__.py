"""The audit of anybody's models: `audit()` and its result, and the command line `creditflow`."""
