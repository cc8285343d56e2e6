"""Words change a photo: prompt-to-prompt, plug-and-play, HiPer and KV-Edit, in `edit.py`; FlowEdit
and FlowAlign, which need no inversion, in `flow_edit.py`; instructions in `instruct.py`."""

from understudy.edit.edit import EditStep, WordEdits, edit, edit_steps, prepared
from understudy.edit.flow_edit import flow_edit_steps
from understudy.edit.instruct import instruct_steps

__all__ = [
    "EditStep",
    "WordEdits",
    "edit",
    "edit_steps",
    "flow_edit_steps",
    "instruct_steps",
    "prepared",
]
