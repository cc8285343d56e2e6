"""Points of a picture go where they should: region.py where a drag looks, tracking.py,
supervision.py, engine.py one step, session.py the loop, files.py and film.py what stays of it."""

from understudy.drag.session import DragSession, DragStep, drag, drag_steps

__all__ = ["DragSession", "DragStep", "drag", "drag_steps"]
