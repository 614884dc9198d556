"""Update rules: a file for each, whose name is the rule's id."""
