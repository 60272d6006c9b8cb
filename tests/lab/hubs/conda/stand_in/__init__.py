"""Stand-in for conda: the words that scripts use, with conda's own output, making real prefixes.

Installed on hosts by the stand-in installer, beside py-rattler, which does the work. It imports nothing of
this repository.
"""

VERSION = "25.3.1"  # the conda whose output it follows
