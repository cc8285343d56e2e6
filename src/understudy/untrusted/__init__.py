"""Checkpoint files of unknown origin, read without running code: a restricted pickle machine, zip
and NumPy readers. Knows no model."""
