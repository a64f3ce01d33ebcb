"""Every bad answer of the web, against a real server on loopback, with its exact outcome."""

import asyncio
import gzip
import time

import pytest
from hostile import LIMITS, get, not_http, reason, response

from data.download.addresses import normalise
from data.download.fetch_errors import TRANSIENT, FetchError
from data.download.http_client import HttpClient
from data.download.settings import HttpLimits


async def silent(writer):
    await asyncio.sleep(60)


async def drip(writer):
    writer.write(response(b"", length=10_000))
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def endless(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize("status", [204, 403, 404, 410, 451])
def test_a_status_is_the_reason_and_permanent(server, status):
    assert reason(server.url("a", response(b"", status))) == (f"http_{status}", False)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept_and_the_host_left_alone(server, status):
    page = response(b"", status, {"Retry-After": "30"})
    first = server.url("a", page, host="127.0.0.5")
    other = server.url("b", response(b"fine"), host="127.0.0.5")
    elsewhere = server.url("b", host="127.0.0.6")

    async def run():
        async with HttpClient(HttpLimits(**LIMITS), 4) as web:

            async def body(found):
                return found

            answers = []
            for url in (first, other, elsewhere):
                try:
                    answers.append(await web.fetch(url, body))
                except FetchError as error:
                    answers.append(error)
            return answers

    refused, paused, fine = asyncio.run(run())
    assert (refused.reason, paused.reason, fine) == (f"http_{status}", "host_paused", b"fine")
    assert {refused.reason, paused.reason} <= TRANSIENT
    assert 25 < refused.retry_at - time.time() <= 30
    assert paused.retry_at == refused.retry_at
    assert server.asked == ["/a", "/b"]


def test_a_long_or_odd_retry_after_is_bounded(server):
    (error,) = get(server.url("a", response(b"", 429, {"Retry-After": "86400"})))
    assert 50 < error.retry_at - time.time() <= 60
    date = "Fri, 01 Jan 2100 00:00:00 GMT"
    (error,) = get(server.url("b", response(b"", 503, {"Retry-After": date}), host="127.0.0.7"))
    assert 50 < error.retry_at - time.time() <= 60
    (error,) = get(server.url("c", response(b"", 503, {"Retry-After": "soon"}), host="127.0.0.8"))
    assert error.retry_at <= time.time()


@pytest.mark.parametrize("page", [silent, drip])
def test_one_deadline_ends_stalls_and_drips(server, page):
    began = time.monotonic()
    assert reason(server.url("a", page), deadline=0.5) == ("timeout", True)
    assert time.monotonic() - began < 2


def test_the_deadline_holds_for_all_redirects_together(server):
    async def slow(writer):
        await asyncio.sleep(0.4)
        writer.write(response(b"", 302, {"Location": "/b"}))
        await writer.drain()

    url = server.url("a", slow)
    server.url("b", slow)
    assert reason(url, deadline=0.6) == ("timeout", True)


def test_refused_unknown_and_bad_tls(server):
    assert reason("http://127.0.0.1:1/a") == ("net_refused", False)
    assert reason("http://no-such-host.invalid/a") == ("net_dns", True)
    assert reason(server.url("a", response(b"x"), scheme="https")) == ("net_tls", False)


def test_a_known_authority_is_trusted(server, authority, monkeypatch, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert get(server.url("a", response(b"x"), scheme="https")) == [b"x"]


def test_a_short_body_is_worth_another_try(server):
    async def short(writer):
        writer.write(response(b"half", length=1000))
        await writer.drain()
        writer.close()

    assert reason(server.url("a", short)) == ("short_body", True)


def test_what_is_too_large_is_given_up_early(server):
    assert reason(server.url("a", response(b"x", length=50 << 20))) == ("too_large", False)
    assert reason(server.url("b", endless)) == ("too_large", False)
    (error,) = get(server.url("a"))
    assert "52428800 bytes" in error.detail


def test_a_compressed_bomb_is_never_inflated(server):
    bomb = gzip.compress(bytes(50 << 20))
    page = response(bomb, headers={"Content-Encoding": "gzip"})
    assert reason(server.url("a", page)) == ("content_encoding", False)
    assert server.headers[0]["accept-encoding"] == "identity"


def test_redirects_are_followed_up_to_a_number(server):
    for hop in range(7):
        server.url(f"{hop}", response(b"", 302, {"Location": f"/{hop + 1}"}))
    server.url("7", response(b"end"))
    assert get(server.url("2")) == [b"end"]
    assert reason(server.url("1")) == ("too_many_redirects", False)
    loop = server.url("loop", response(b"", 301, {"Location": "/loop"}))
    assert reason(loop) == ("too_many_redirects", False)
    assert server.asked.count("/loop") == 1
    assert reason(server.url("n", response(b"", 302))) == ("bad_redirect", False)


@pytest.mark.parametrize(
    "host",
    ["127.1.2.3", "2130772227", "0x7f010203", "0177.1.2.3", "127.66051", "localhost", "0.0.0.0",
     "[::1]", "[::ffff:127.1.2.3]", "[64:ff9b::7f01:203]", "10.0.0.1", "192.168.1.1",
     "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fd00::1]"],
)  # fmt: skip
def test_internal_addresses_are_blocked_in_every_form(server, host):
    """127.0.0.0/24 alone is allowed here; ``localhost`` also stands for ::1."""
    allowed = () if host == "localhost" else LIMITS["allowed_networks"]
    address = f"http://{host}:{server.port}/secret"
    assert reason(address, allowed_networks=allowed) == ("blocked_address", False)
    redirect = server.url("r", response(b"", 302, {"Location": address}))
    if host != "localhost":
        assert reason(redirect) == ("blocked_address", False)
    assert "/secret" not in server.asked


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "data:image/png;base64,AAAA", "ftp://example.org/a.jpg", "", "a.jpg",
     "http://", "http:///a.jpg", "http://example.org:99999/", "http://example.org:port/",
     "http://example.org:0/", "http://user:word@example.org/a.jpg", "javascript:alert(1)",
     "http://[::1/a", "//example.org/a.jpg"],
)  # fmt: skip
def test_what_is_no_web_address(server, url):
    assert reason(url) == ("bad_url", False)
    if url and "[" not in url:
        redirect = server.url("r", response(b"", 302, {"Location": url}))
        if url not in {"a.jpg", "//example.org/a.jpg", "http:///a.jpg", "http://"}:
            assert reason(redirect) == ("bad_url", False)


def test_spaces_and_unicode_are_encoded_and_fetched(server):
    server.pages["/a%20b/%C3%A9.jpg?q=%20x"] = response(b"x")
    assert get(f"  http://127.0.0.1:{server.port}/a b/é.jpg?q=%20x#part\t") == [b"x"]
    assert normalise("http://EXAMPLE.org:80/a") == normalise("http://example.org/a#b")


def test_an_answer_that_is_not_http(server):
    assert reason(server.url("a", not_http)) == ("bad_http", False)


def test_a_closed_connection(server):
    async def close(writer):
        writer.close()

    assert reason(server.url("a", close)) == ("net_reset", True)


def test_a_host_is_asked_by_a_few_at_a_time(server):
    async def slow(writer):
        await asyncio.sleep(0.05)
        writer.write(response(b"x"))
        await writer.drain()

    urls = [server.url(f"{i}", slow, host=h) for i in range(6) for h in ("127.0.0.2", "127.0.0.3")]
    assert get(*urls, per_host=2) == [b"x"] * 12
    assert set(server.busiest.values()) == {2}


def test_the_agent_says_who_it_is_and_sends_no_cookies(server):
    page = response(b"x", headers={"Set-Cookie": "a=b"})
    get(server.url("a", page), server.url("a"), in_flight=1)
    agent = server.headers[-1]["user-agent"]
    assert agent.startswith("gill-pipeline/")
    assert "test@example.org" in agent
    assert all("cookie" not in h for h in server.headers)


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        (b"/caf\xe9.jpg", "/caf%E9.jpg"),
        ("/caf\u00e9.jpg".encode(), "/caf%C3%A9.jpg"),
        (b"/a b/\xff\xfe?q=\xe9", "/a%20b/%FF%FE?q=%E9"),
        (b"/caf%E9.jpg", "/caf%E9.jpg"),
    ],
)
def test_a_redirect_whose_bytes_are_not_utf8_is_followed(server, place, asked):
    answer = b"HTTP/1.1 302 X\r\nContent-Length: 0\r\nLocation: " + place + b"\r\n\r\n"
    server.pages[asked] = response(b"x")
    assert get(server.url("a", answer)) == [b"x"]
    assert server.asked[-1] == asked
