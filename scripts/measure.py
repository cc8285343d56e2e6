#!/usr/bin/env python
"""Measure the built-in model on held-out toys: see benchmarks/measure.py."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
runpy.run_module("benchmarks.measure", run_name="__main__")
