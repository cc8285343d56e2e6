"""How annotations are checked while tests run: an int is a fine float, as every checker has it."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
