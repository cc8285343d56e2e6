"""The mathematics of sampling: schedule, guidance, the DDIM step, and words in prompts.
Knows models only by their protocol."""
