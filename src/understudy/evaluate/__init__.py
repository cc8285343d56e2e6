"""The papers' protocols and SwapBench: methods, measures, reports, studies with people."""
