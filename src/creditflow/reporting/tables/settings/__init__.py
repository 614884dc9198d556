"""Settings of tables: the file of a table's name defines `Settings`; files that begin with _ are shared."""
