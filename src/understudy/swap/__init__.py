"""A learnt subject takes another's place: schedule.py when, blend.py where, photoswap.py how."""

from understudy.swap.photoswap import SwapStep, swap, swap_steps

__all__ = ["SwapStep", "swap", "swap_steps"]
