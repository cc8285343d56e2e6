"""How the built-in models are trained; not part of the wheel. Run as `python -m training.NAME`."""
