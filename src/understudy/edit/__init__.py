"""Words change a photo: prompt-to-prompt, plug-and-play, and HiPer; the verb is in `edit.py`."""

from understudy.edit.edit import EditStep, WordEdits, edit, edit_steps, prepared

__all__ = ["EditStep", "WordEdits", "edit", "edit_steps", "prepared"]
