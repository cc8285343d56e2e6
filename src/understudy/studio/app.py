"""The FastAPI application: routes, pages and errors, inside the guard."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from understudy._version import __version__
from understudy.errors import InputError, UnderstudyError, one_line
from understudy.studio import drag_routes, routes_files, routes_jobs, routes_library
from understudy.studio.config import Config
from understudy.studio.security import Guard
from understudy.studio.studio import Studio

STATIC = Path(__file__).parent / "static"
NO_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>understudy studio</title>
<h1>understudy studio</h1><p>The pages are not installed. The API is described in
<a href="/docs">/docs</a>.</p></html>"""


def create_app(config: Config) -> Guard:
    """The studio as an ASGI application; its workers start and stop with it.

    Raises OutputError where the data folder cannot be used.
    """
    studio = Studio(config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        studio.start()
        yield
        studio.stop()

    app = FastAPI(
        title="understudy studio",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.studio = studio
    for module in (routes_jobs, routes_files, routes_library, drag_routes):
        app.include_router(module.router)
    _handle_errors(app)
    app.add_api_route("/docs", describe, include_in_schema=False, response_class=HTMLResponse)
    if (STATIC / "index.html").is_file():
        app.mount("/", Pages(directory=STATIC, html=True), name="pages")
    else:
        app.add_api_route("/", no_page, include_in_schema=False, response_class=HTMLResponse)
    return Guard(app, config, studio.bell.close)


class Pages(StaticFiles):
    """Files that a browser asks for again each time, mostly to hear that they are the same.

    Without that it would mix scripts of two versions for days after an update.
    """

    def file_response(self, *given: Any, **named: Any) -> Response:
        answer = super().file_response(*given, **named)
        answer.headers["cache-control"] = "no-cache"
        return answer


def no_page() -> str:
    """What is shown where the pages are not installed."""
    return NO_PAGE


def describe(request: Request) -> str:
    """The API as a plain page: every route with what it does. The schema is /openapi.json."""
    from html import escape

    schema: dict[str, Any] = request.app.openapi()
    rows: list[str] = []
    for path, methods in schema["paths"].items():
        for method, told in methods.items():
            words = escape(str(told.get("description", "")))
            name = f"<code>{method.upper()} {escape(path)}</code>"
            rows.append(f"<tr><th scope=row>{name}</th><td>{words}</td></tr>")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>API of the studio</title>'
    link = '<p>Machine-readable: <a href="/openapi.json">/openapi.json</a></p>'
    return f"{head}<h1>API of the studio</h1>{link}<table>{''.join(rows)}</table></html>"


def _handle_errors(app: FastAPI) -> None:
    """Every error is {"error": one line}."""

    async def wrong(request: Request, error: Exception) -> JSONResponse:
        text = request.app.state.studio.queue.scrubbed(str(error))
        return _said(400 if isinstance(error, InputError) else 409, text)

    async def missing(request: Request, error: Exception) -> JSONResponse:
        return _said(404, str(error.args[0]) if error.args else "There is nothing here.")

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        faults: list[Any] = (
            list(error.errors()) if isinstance(error, RequestValidationError) else []
        )
        parts = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in faults[:3]]
        return _said(422, "; ".join(parts) or "The request does not match /docs.")

    async def plain(request: Request, error: Exception) -> JSONResponse:
        code = error.status_code if isinstance(error, HTTPException) else 500
        told = {404: "There is nothing here.", 405: "This route does not take that method."}
        detail = str(getattr(error, "detail", "That failed."))
        return _said(code, told.get(code, detail))

    app.add_exception_handler(UnderstudyError, wrong)
    app.add_exception_handler(LookupError, missing)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)


def _said(code: int, text: str) -> JSONResponse:
    return JSONResponse({"error": one_line(text)}, status_code=code)
