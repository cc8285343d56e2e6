"""A learnt subject takes another's place: schedule.py when, blend.py where, replay.py how."""

from understudy.swap.photoswap import swap, swap_steps
from understudy.swap.replay import SwapStep

__all__ = ["SwapStep", "swap", "swap_steps"]
