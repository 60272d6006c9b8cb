"""Stand-in for conda-forge and Miniforge: a channel with a real Python, an installer, and the conda words.

The Python is the base distribution's own, wrapped as a relocatable package; prefixes are made by py-rattler.
"""
