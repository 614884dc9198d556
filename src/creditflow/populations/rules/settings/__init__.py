"""Settings of the update rules: a file for each rule that has any, without torch."""
