"""Photo to what the model can replay: the verb is in `invert.py`, one method in each other file."""

from understudy.invert.inversion import Inversion, InvertStep
from understudy.invert.invert import inversion_steps, invert

__all__ = ["Inversion", "InvertStep", "inversion_steps", "invert"]
