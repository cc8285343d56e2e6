"""Photoswap: the verb in photoswap.py, its schedule search, sweep and explanation."""

from understudy.swap.photoswap import swap, swap_steps
from understudy.transfer.step import SwapStep

__all__ = ["SwapStep", "swap", "swap_steps"]
