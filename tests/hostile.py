"""A real HTTP server on loopback that answers as the web does: badly."""

import asyncio
import io
import socket
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from data.download.fetch_errors import TRANSIENT, FetchError
from data.download.http_client import HttpClient
from data.download.settings import FetchSettings, HttpLimits, ImageRules
from data.sources.captioned_urls import CaptionedUrls

HOSTS = [f"127.0.0.{i}" for i in range(1, 9)] + ["127.1.2.3"]


def random_image(width=96, height=64, mode="RGB", seed=0):
    """A smooth random image."""
    noise = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image=None, form="JPEG", **options):
    """The bytes of an image."""
    out = io.BytesIO()
    (image or random_image()).save(out, form, **options)
    return out.getvalue()


def response(body=b"", status=200, headers=(), length=None):
    """A whole HTTP answer; ``length`` may lie."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{k}: {v}" for k, v in dict(headers).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Server:
    """Answers by path. A value is bytes, or a coroutine function of the writer.

    The server listens on several loopback addresses, so 127.0.0.2 is another host.
    """

    pages: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    port: int = 0
    tls_port: int = 0
    busy: dict = field(default_factory=dict)  # host -> requests at once
    busiest: dict = field(default_factory=dict)

    def url(self, path, page=None, host="127.0.0.1", scheme="http"):
        """The address of a path, which answers with ``page`` from now on."""
        if page is not None:
            self.pages["/" + path] = page
        return f"{scheme}://{host}:{self.tls_port if scheme == 'https' else self.port}/{path}"

    async def answer(self, reader, writer):
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                lines = request.decode("latin1").split("\r\n")
                path = lines[0].split(" ")[1]
                headers = {k.lower(): v for k, _, v in (x.partition(": ") for x in lines[1:])}
                host = headers["host"]
                self.asked.append(path)
                self.headers.append(headers)
                self.busy[host] = self.busy.get(host, 0) + 1
                self.busiest[host] = max(self.busiest.get(host, 0), self.busy[host])
                try:
                    page = self.pages.get(path, response(b"none", 404))
                    if callable(page):
                        await page(writer)
                        if writer.is_closing():
                            return
                        continue
                    writer.write(page)
                    await writer.drain()
                finally:
                    self.busy[host] -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def listening():
    """Sockets on one free port of several loopback addresses."""
    sockets, port = [], 0
    for host in HOSTS:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((host, port))
        port = one.getsockname()[1]
        sockets.append(one)
    return sockets


@contextmanager
def serving(authority):
    """A running ``Server`` whose certificate is of ``authority``."""
    served, ready, ends = Server(), threading.Event(), []

    async def run():
        stop = asyncio.Event()
        ends.append(stop)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        plain, secure = listening(), listening()
        servers = [await asyncio.start_server(served.answer, sock=s) for s in plain]
        servers += [await asyncio.start_server(served.answer, sock=s, ssl=context) for s in secure]
        served.port, served.tls_port = plain[0].getsockname()[1], secure[0].getsockname()[1]
        ready.set()
        await stop.wait()
        for one in servers:
            one.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(ends[0].set)
        thread.join(10)


def limits(**changes):
    """HttpClient limits for the loopback server."""
    settings = {"contact": "test@example.org", "deadline": 20.0, "robots": False, "per_host": 64}
    return HttpLimits(**{**settings, "allowed_networks": ("127.0.0.0/24",), **changes})


def settings(store, **changes):
    """How the tests fetch: ten rows a shard, small images."""
    given = {"web": limits(), "images": ImageRules(resize="crop", size=48), "shard_size": 10}
    return FetchSettings(store=str(store), **{**given, "processes": 2, **changes})


def listed(tmp_path, rows, name="list.tsv"):
    """A list of (caption, address) as a source."""
    path = tmp_path / name
    path.write_text("".join(f"{caption}\t{url}\n" for caption, url in rows))
    return CaptionedUrls({"train": str(path)})


async def not_http(writer):
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    await writer.drain()


LIMITS = {
    "contact": "test@example.org", "deadline": 2.0, "largest_bytes": 100_000, "robots": False,
    "allowed_networks": ("127.0.0.0/24",),
}  # fmt: skip


def get(*urls, use=None, in_flight=16, **changes):
    """Fetch some addresses at once; each answer is the body or the FetchError."""

    async def body(found):
        return use(found) if use else found

    async def all_of_them():
        async with HttpClient(HttpLimits(**LIMITS | changes), in_flight) as web:
            return await asyncio.gather(
                *(web.fetch(url, body) for url in urls), return_exceptions=True
            )

    return asyncio.run(all_of_them())


def reason(url, **changes):
    """The reason for which an address gives nothing, and whether it is worth another try."""
    (error,) = get(url, **changes)
    assert isinstance(error, FetchError), error
    return error.reason, error.reason in TRANSIENT
