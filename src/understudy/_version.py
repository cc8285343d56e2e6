"""The version: read by the build, the recipes and `understudy --version`."""

__version__ = "0.1.0"
