"""The package's version: what reports, the command line and `relucate.__version__` say."""

__version__ = "0.1.0"
