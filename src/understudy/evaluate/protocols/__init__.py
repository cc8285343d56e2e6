"""The papers' protocols, one a file: what is made, what is measured, in which tables it ends."""
