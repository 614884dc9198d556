"""Settings of figures: the file of a figure's name defines `Settings`; files that begin with _ are shared."""
