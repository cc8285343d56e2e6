"""Models behind one protocol: interface.py says what may be called, registry.py how to load."""
