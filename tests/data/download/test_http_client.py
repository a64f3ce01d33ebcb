"""Every bad answer of the web, against a real server on loopback, with its exact outcome."""

import asyncio
import gzip
import ipaddress
import time

import pytest
from hostile import response

from data.download.http_client import (
    TRANSIENT,
    FetchError,
    HttpClient,
    _seconds,
    is_public,
    normalise,
    opts_out,
)
from data.download.settings import HttpLimits

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


async def garbage(writer):
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
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


@pytest.mark.parametrize(
    "after", ["\u00b2", "Fri, 01 Jan 2100 00:00:00 -9999999999999", "9" * 5000, "\udce9", ""]
)
def test_a_retry_after_without_sense_is_a_number_of_seconds(after):
    assert _seconds(after) >= 0


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


def test_public_addresses_are_public():
    assert is_public("93.184.216.34", ())
    assert is_public("2606:2800:220:1::1", ())
    assert not is_public("224.0.0.1", ())
    assert not is_public("2002:7f00:1::", ())
    assert not is_public("::ffff:10.0.0.1", ())


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


@pytest.mark.parametrize("tag", ["noai", "NoImageAI", "noindex", "noimageindex", "noml", "none",
                                 "nofollow, noai", "gill-pipeline: noindex", "*: noai",
                                 "unavailable_after: 25 Jun 2010, noindex"])  # fmt: skip
def test_opt_out_headers_are_honoured(server, tag):
    page = response(b"x", headers={"X-Robots-Tag": tag})
    assert reason(server.url("a", page)) == ("opt_out", False)
    assert get(server.url("a"), opt_out=False) == [b"x"]


def test_directives_for_others_do_not_count():
    assert opts_out(["nofollow", "otherbot: noindex", "all"]) is None
    assert opts_out(["otherbot: noindex", "noai"]) == "noai"


def test_robots_txt_is_honoured_and_read_once(server):
    server.url("robots.txt", response(b"User-agent: gill-pipeline\nDisallow: /private/\n"))
    fine, private = server.url("a", response(b"x")), server.url("private/a", response(b"x"))
    answers = get(fine, private, fine, private, robots=True)
    assert [a if isinstance(a, bytes) else a.reason for a in answers] == [
        b"x", "opt_out", b"x", "opt_out"
    ]  # fmt: skip
    assert server.asked.count("/robots.txt") == 1
    assert "/private/a" not in server.asked
    assert get(private, robots=False) == [b"x"]


@pytest.mark.parametrize(
    "line",
    [
        "Disallow: http://[your-domain]/private/",
        "Disallow: //\u2100/",
        "Allow: http://[::1/",
        "Crawl-delay: \u00b2",
        "Crawl-delay: " + "9" * 5000,
        "Request-rate: \u00b2/\u00b2",
        "no colon",
        "\x00",
    ],
)
def test_a_line_of_robots_txt_that_cannot_be_parsed_is_left_out(server, line):
    rules = f"User-agent: *\nDisallow: /before/\n{line}\nDisallow: /after/\n"
    server.url("robots.txt", response(rules.encode()))
    urls = [server.url(path, response(b"x")) for path in ("before/a", "after/a", "free")]
    before, after, free = get(*urls, robots=True)
    assert (before.reason, after.reason, free) == ("opt_out", "opt_out", b"x")


@pytest.mark.parametrize(
    ("page", "outcome"),
    [(response(b"", 404), b"x"), (response(b"", 403), b"x"), (response(b"<html>"), b"x"),
     (response(b"", 500), "robots_unreachable"), (garbage, b"x")],
)  # fmt: skip
def test_robots_txt_that_is_not_there(server, page, outcome):
    server.url("robots.txt", page)
    (answer,) = get(server.url("a", response(b"x")), robots=True)
    assert (answer if isinstance(answer, bytes) else answer.reason) == outcome


def test_an_answer_that_is_not_http(server):
    assert reason(server.url("a", garbage)) == ("bad_http", False)


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


def test_a_host_that_the_parser_itself_fails_on_is_a_bad_address():
    with pytest.raises(FetchError) as found:
        normalise("http://\u202e\ufb00HTTP:\u0663[]@")
    assert found.value.reason == "bad_url"


@pytest.mark.parametrize("host", ["2130772483", "0x7f010203", "0177.1.2.3", "127.66051"])
def test_an_address_has_one_spelling(host):
    """Pauses, robots.txt and the limit for each host go by it."""
    assert normalise(f"http://{host}/a").host == "127.1.2.3"


def test_an_address_inside_another_counts():
    allowed = [ipaddress.ip_network("127.0.0.0/24")]
    assert is_public("::ffff:93.184.216.34", ())
    assert is_public("::ffff:127.0.0.1", allowed)
    assert not is_public("::ffff:127.1.2.3", allowed)


@pytest.mark.parametrize("address", ["64:ff9b::5db8:d822", "::", "0.0.0.0", "240.0.0.1", "ff02::1"])
def test_addresses_that_no_host_of_the_internet_has(address):
    assert not is_public(address, ())
