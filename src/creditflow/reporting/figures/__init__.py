"""Figures: one file each, which defines `FIGURE`; the file name is the figure's id, its docstring the caption."""
