"""A learnt subject takes another's place: schedule.py when, blend.py where, photoswap.py how."""
