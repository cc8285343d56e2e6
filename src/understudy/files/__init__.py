"""Files on disk: atomic writes. Knows nothing of what the files hold."""
