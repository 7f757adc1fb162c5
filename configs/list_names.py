"""The names of the lists of a folder, and of what is made of them: sets, flags of the trainer, parts of its metrics."""

from __future__ import annotations

# In the order in which they are embedded: the training set comes first, since the others are compared with it.
SPLITS = ("train", "eval", "test")
# The labels, one a line.
DICT_NAME = "dict.txt"
