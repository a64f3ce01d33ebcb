"""A fast HTTP server on loopback that answers as the web does, for ``benchmarks.download``.

What an address answers is written in it: ``/good/7.jpg``, ``/gone/7.jpg``, ``/stall/7.jpg``, ...
"""

from __future__ import annotations

import asyncio
import io
import random
import ssl
import sys
from typing import Any

import numpy as np
import uvloop
from PIL import Image

INTERNAL = "127.9.9.9"
IMAGES = 200
# Shares of the mix; what is left is good.
MIX = {"gone": 0.1, "stall": 0.02, "short": 0.01, "page": 0.01, "huge": 0.005, "loop": 0.005,
       "inside": 0.005}  # fmt: skip


def kinds(count: int, mixed: bool, seed: int = 0) -> list[str]:
    """What each of ``count`` addresses is to answer, in random order."""
    if not mixed:
        return ["good"] * count
    found = [kind for kind, share in MIX.items() for _ in range(round(share * count))]
    found += ["good"] * (count - len(found))
    random.Random(seed).shuffle(found)
    return found


def images() -> list[bytes]:
    """JPEG files of about 100 KB, 700 to 1100 pixels wide."""
    made = []
    for seed in range(IMAGES):
        generator = np.random.default_rng(seed)
        width, height = generator.integers(700, 1100, 2)
        noise = generator.integers(0, 255, (height // 4, width // 4, 3), np.uint8)
        coarse = generator.integers(0, 255, (12, 16, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        fine = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        Image.blend(image, fine, 0.12).save(out, "JPEG", quality=92)
        made.append(out.getvalue())
    return made


def answer(body: bytes, status: str = "200 OK", more: str = "", length: int | None = None) -> bytes:
    """A whole HTTP answer."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{more}\r\n".encode() + body


class MockWeb(asyncio.Protocol):
    """One connection."""

    good: list[bytes]
    port: int

    def connection_made(self, transport: Any) -> None:
        """Keep the connection."""
        self._transport, self._buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            request, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self._answer(request.split(b" ", 2)[1].decode())

    def _answer(self, path: str) -> None:
        kind, _, name = path[1:].partition("/")
        if kind == "stall":
            return
        if kind == "good":
            self._transport.write(self.good[int(name.partition(".")[0]) % IMAGES])
        elif kind == "short":  # a whole answer with half an image
            body = self.good[0].partition(b"\r\n\r\n")[2]
            self._transport.write(answer(body[: len(body) // 2]))
        elif kind == "page":
            self._transport.write(answer(b"<!DOCTYPE html><p>gone</p>"))
        elif kind == "huge":
            self._transport.write(answer(b"\xff\xd8\xff" + bytes(50 << 20)))
        elif kind == "loop":
            self._transport.write(answer(b"", "302 Found", f"Location: {path}\r\n"))
        elif kind == "inside":
            place = f"http://{INTERNAL}:{self.port}/good/1.jpg"
            self._transport.write(answer(b"", "302 Found", f"Location: {place}\r\n"))
        else:
            self._transport.write(answer(b"gone", "404 Not Found"))


async def serve(certificate: str) -> None:
    """Serve HTTP and HTTPS until standard input ends; prints the two ports first."""
    loop = asyncio.get_running_loop()
    MockWeb.good = [answer(p, more="Content-Type: image/jpeg\r\n") for p in images()]
    plain = await loop.create_server(MockWeb, "127.0.0.1", 0)
    MockWeb.port = plain.sockets[0].getsockname()[1]
    await loop.create_server(MockWeb, INTERNAL, MockWeb.port)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    secure = await loop.create_server(MockWeb, "127.0.0.1", 0, ssl=context)
    print(MockWeb.port, secure.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
