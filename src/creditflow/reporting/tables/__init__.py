"""Tables: one file each, which defines `TABLE`; the file name is the table's id, its docstring the caption."""
