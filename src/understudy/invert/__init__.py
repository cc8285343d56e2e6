"""Photo to what the model can replay: inversion.py the value and DDIM, then one method a file."""
