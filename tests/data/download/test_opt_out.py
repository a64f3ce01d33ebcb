"""What owners of images ask of robots is followed, however it is written."""

import pytest
from hostile import get, not_http, reason, response

from data.download.opt_out import opts_out


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


@pytest.mark.parametrize("mark", ["\ufeff", "\ufeff\ufeff"])
def test_a_byte_order_mark_hides_no_rule(server, mark):
    rules = f"{mark}User-agent: *\nDisallow: /first/\n\nUser-agent: other\nDisallow: /\n"
    server.url("robots.txt", response(rules.encode()))
    urls = [server.url(path, response(b"x")) for path in ("first/a", "free")]
    first, free = get(*urls, robots=True)
    assert (getattr(first, "reason", first), free) == ("opt_out", b"x")


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
     (response(b"", 500), "robots_unreachable"), (not_http, b"x")],
)  # fmt: skip
def test_robots_txt_that_is_not_there(server, page, outcome):
    server.url("robots.txt", page)
    (answer,) = get(server.url("a", response(b"x")), robots=True)
    assert (answer if isinstance(answer, bytes) else answer.reason) == outcome
