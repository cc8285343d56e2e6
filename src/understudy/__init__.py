"""understudy: learn a subject from a few photos, let it take another subject's place.

Heavy modules are imported when one of their names is first used, so ``import understudy`` is
quick and needs no model.
"""

from __future__ import annotations

from understudy._version import __version__ as __version__
