"""The result record: what a measurement leaves behind, how it is sealed, and which guards fire for it.

All that reporting knows of a model is read from records.
"""
