"""A learnt subject takes another's place: photoswap.py the verb, replay.py how it is done."""

from understudy.swap.photoswap import swap, swap_steps
from understudy.transfer.step import SwapStep

__all__ = ["SwapStep", "swap", "swap_steps"]
