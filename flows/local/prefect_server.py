"""Prefect's server behind a guard: only its own pages and this checkout's programs get in.

python -m flows.local.prefect_server --port 4200 [--parent PID]

Prefect by itself answers to any host name, and takes websockets from any page. A page that is open
in the user's browser could so start a flow run, or have its own name resolved to loopback and read
all answers. The guard looks at what a page cannot forge: the Host and the Origin of a request.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import threading
import time

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.paths import HOST

# Whole, so that neither localhost.evil.example nor localhost:80@evil.example passes.
_OWN = re.compile(rf"(?:{re.escape(HOST)}|localhost)(?::\d{{1,5}})?", re.ASCII | re.IGNORECASE)
OPEN = "/open"
# Prefect's newer page reports its use to a company even if the server's own telemetry is off; with
# this the browser fetches nothing from elsewhere, and no other page can show this one in a frame.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
# The key follows the # of the link, so the browser does not send it and no log holds it. It is kept
# where Prefect's own login page keeps it, for this origin alone, and only if the server takes it.
_PAGE = """<!doctype html><meta charset="utf-8"><title>Prefect</title><p id="told">Opening ...</p>
<script>
const key = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
fetch("/api/admin/version", {headers: {Authorization: "Basic " + key}}).then(answer => {
  if (answer.ok) { localStorage.setItem("prefect-password", key); location.replace("/"); }
  else { document.getElementById("told").textContent =
    "This link is of another server or is out of date. `gill status` prints the right one."; }
});
</script>"""


class OwnPagesOnly:
    """Refuses what comes under other names and of other pages; its own pages stay at home."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what comes from this server's own pages, or from no page at all."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        if (refused := _refused(Headers(scope=scope))) is not None:
            await refused(scope, receive, send)
            return

        async def at_home(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, at_home)


def _refused(headers: Headers) -> PlainTextResponse | None:
    """What to answer to a request under another name or of another page's; None for our own.

    A browser sends one Host, and one Origin or none.
    """
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not _OWN.fullmatch(hosts[0]):
        return PlainTextResponse("This server has no such name.\n", 400)
    if len(origins) > 1 or any(o.lower() != f"http://{hosts[0]}".lower() for o in origins):
        return PlainTextResponse("A page of another origin may not use this server.\n", 403)
    return None


def guarded(app: FastAPI) -> ASGIApp:
    """Put the guard around Prefect's app, and the page that the printed link opens into it.

    Around and not into it: Prefect's automations call the app itself, under a host of its own.
    """

    async def page(_: Request) -> HTMLResponse:
        return HTMLResponse(_PAGE, headers={"Cache-Control": "no-store"})

    app.router.routes.insert(0, Route(OPEN, page))
    return OwnPagesOnly(app)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve until a signal, or until the process that started this one is gone."""
    parser = argparse.ArgumentParser(prog="python -m flows.local.prefect_server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parent", type=int, help="end when this process is gone")
    given = parser.parse_args()
    if given.parent is not None:
        threading.Thread(target=_end_with, args=(given.parent,), daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(
        guarded(create_app(final=True)),
        host=HOST,
        port=given.port,
        log_level="warning",
        timeout_graceful_shutdown=5,
        server_header=False,
    )


if __name__ == "__main__":
    main()
