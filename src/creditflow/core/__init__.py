"""What every room builds on: the user's mistakes in one line, files that are whole or absent, settings, plugins. No torch, and no
knowledge of the science.
"""
