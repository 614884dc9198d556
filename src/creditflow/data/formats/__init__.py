"""Readers of published file formats. Each knows a format and no dataset."""
