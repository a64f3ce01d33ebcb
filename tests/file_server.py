"""A real web server of files, on loopback, that cuts connections and lies about what it sends."""

import re
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How a file is sent.

    Attributes:
        cuts: bytes of the body after which each answer breaks off, in their order; then none does.
        softly: a cut is an orderly end of the connection and not a reset.
        statuses: that the first answers have instead of the file.
        ranges: whether a range is answered with one. length: said, ``chunked`` or ``none``.
        etags: of each answer in their order, the last for all that follow.
        says: what Content-Range says of a range's first byte; None: the truth.
        sends: the first byte of what is sent for a range; None: the right one.
    """

    data: bytes
    cuts: list = field(default_factory=list)
    softly: bool = False
    statuses: list = field(default_factory=list)
    ranges: bool = True
    length: str = "said"
    etags: list = field(default_factory=lambda: ['"one"'])
    says: int | None = None
    sends: int | None = None
    modified: str = ""
    more: dict = field(default_factory=dict)


class FileServer(ThreadingHTTPServer):
    """Files by path, and every request that came: method, path and range."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.asked = {}, []

    def url(self, path, data=None, **how):
        """The address of a path, at which a file lies from now on."""
        if data is not None:
            self.files["/" + path] = Behaviour(data, **how)
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def gets(self, path):
        """Ranges of the GET requests for a file; "" for all of it."""
        return [r for method, p, r in self.asked if (method, p) == ("GET", "/" + path)]

    def handle_error(self, *_):
        """A client that hangs up is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body):
        asked = self.headers.get("Range", "")
        self.server.asked.append((self.command, self.path, asked))
        how = self.server.files.get(self.path)
        if how is None or (how.statuses and with_body):
            self.send_response(404 if how is None else how.statuses.pop(0))
            for name, value in (how.more if how else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and how.ranges else 0
        ranged = bool(asked and how.ranges)
        if start > len(how.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(how.data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = how.data[start if how.sends is None or not ranged else how.sends :]
        self.send_response(206 if ranged else 200)
        if ranged:
            said = start if how.says is None else how.says
            self.send_header("Content-Range", f"bytes {said}-{len(how.data) - 1}/{len(how.data)}")
        if how.etags:
            etag = how.etags.pop(0) if len(how.etags) > 1 and with_body else how.etags[0]
            self.send_header("ETag", etag)
        if how.modified:
            self.send_header("Last-Modified", how.modified)
        for name, value in how.more.items():
            self.send_header(name, value)
        if how.length == "said":
            self.send_header("Content-Length", str(len(body)))
        elif how.length == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if with_body:
            self._send(body, how)

    def _send(self, body, how):
        cut = how.cuts.pop(0) if how.cuts else None
        sent = body if cut is None else body[:cut]
        for at in range(0, len(sent), 50_000):
            part = sent[at : at + 50_000]
            chunk = b"%x\r\n%b\r\n" % (len(part), part) if how.length == "chunked" else part
            self.wfile.write(chunk)
        self.wfile.flush()
        if cut is not None:
            self.close_connection = True
            if not how.softly:
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # the close becomes a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
        elif how.length == "chunked":
            self.wfile.write(b"0\r\n\r\n")


@contextmanager
def serving_files():
    """A running server of files."""
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
