"""The package's version, for reports, the command line and `relucate.__version__`."""

__version__ = "0.2.0.dev0"
