"""What to train on: digits (built in), image folders, .npz files, arrays, named data sets."""

from relucate.data.dataset import Dataset, make, make_split
from relucate.data.source import load

__all__ = ["Dataset", "load", "make", "make_split"]
