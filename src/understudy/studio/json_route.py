"""Routes whose JSON body is looked over before it is parsed into a model.

Python's parser takes halves of surrogate pairs, which can be stored but never be sent back, and
recurses as deeply as the body says.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from understudy.files.reading import parse_json


class JsonRoute(APIRoute):
    """Raises InputError for a body that is not JSON, nested too deeply, or not valid Unicode. A
    request without a body is not checked."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler of a request, after the check."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            # Many clients name the type in every request, those without a body included.
            if "json" in request.headers.get("content-type", "") and await request.body():
                parse_json(await request.body(), "The request")  # the body is kept for FastAPI
            return await handle(request)

        return checked
