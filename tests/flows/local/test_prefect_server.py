"""The attack of a web page on the real servers: what it sends is refused, what is ours works."""

import asyncio
import http.client
import json
import stat
from urllib.parse import urlsplit

import httpx
import pytest
import websockets
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.local.environment import auth_string, page_link

EVIL = "http://evil.example"
ORIGINS = [
    EVIL,
    "null",
    "http://localhost:3000",
    "https://127.0.0.1",
    "http://127.0.0.1.evil.example",
]
SOCKETS = ["/api/events/in", "/api/events/out", "/api/logs/out"]


@pytest.fixture
def run(insider):
    """Where a run of a deployment can be asked for."""
    flow = insider.post("/flows/", json={"name": "probe"}).raise_for_status().json()["id"]
    wanted = {"name": "probe", "flow_id": flow, "work_pool_name": "gill"}
    made = insider.post("/deployments/", json=wanted).raise_for_status().json()["id"]
    return f"/deployments/{made}/create_flow_run"


def test_a_page_of_another_origin_is_refused(servers, insider, run):
    """Even one that has learned the key and a token."""
    asked = {"Access-Control-Request-Method": "POST"}
    for origin in ORIGINS:
        insider.headers["Origin"] = origin
        for answer in (
            insider.get("/health"),
            insider.options("/flow_runs/filter", headers=asked),
            insider.post("/flow_runs/filter", json={}),
            insider.post(run, json={}),
        ):
            assert answer.status_code == 403, origin
            assert "access-control-allow-origin" not in answer.headers
    insider.headers["Origin"] = servers.prefect
    assert insider.post(run, json={}).status_code == 201


def test_the_host_of_a_page_that_was_rebound_is_refused(servers, insider):
    """DNS rebinding: the page's own name leads to loopback, so its requests are of its origin."""
    port = servers.prefect.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
        for path in ("/health", "/admin/version"):
            assert insider.get(path, headers={"Host": host}).status_code == 400, host
    for host in (f"localhost:{port}", "localhost:8080"):  # a port that is forwarded
        own = {"Host": host, "Origin": f"http://{host}"}
        assert insider.post("/flow_runs/filter", json={}, headers=own).status_code == 200


def asked(server, path, headers):
    """The status of a request with just these headers, two of a name too."""
    address = urlsplit(server)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    try:
        return connection.getresponse().status
    finally:
        connection.close()


MLFLOW_PATH = "/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
# Names that resolve to loopback or look as if they did, of pages that somebody else has made.
FOREIGN_HOSTS = [
    "127.0.0.1.nip.io", "127.0.0.1.nip.io:{port}", "localhost.evil.io", "localhost.evil.io:{port}",
    "evil.io@localhost:{port}", "evil.io, localhost", "0.0.0.0:{port}", "127.1:{port}",
    "2130706433", "[::1]:{port}", "[::1]", "[::ffff:127.0.0.1]", "localhost.:{port}",
]  # fmt: skip
# Which no browser sends. MLflow, which is told of any port by a star, takes them.
IMPOSSIBLE_HOSTS = [
    "localhost:{port}@evil.io", "localhost:{port}.evil.io", "localhost:", "localhost:1:{port}",
    "localhost:{port}, evil.io", "localhost:\u0660",
]  # fmt: skip
HONEST_HOSTS = ["localhost:8080", "localhost", "127.0.0.1", "127.0.0.1:{port}"]
CAPITAL_HOSTS = [
    "LOCALHOST:{port}",
    "LocalHost",
]  # browsers write them small; MLflow knows no other


@pytest.mark.parametrize("which", ["prefect", "mlflow"])
def test_names_that_look_like_loopback_are_refused_and_honest_ones_taken(servers, which):
    server = getattr(servers, which)
    path, port = {"prefect": "/api/health", "mlflow": MLFLOW_PATH}[which], server.rpartition(":")[2]
    ours = which == "prefect"
    for host in FOREIGN_HOSTS + IMPOSSIBLE_HOSTS * ours:
        named = host.format(port=port).encode("utf-8").decode("latin-1")
        assert asked(server, path, [("Host", named)]) in {400, 403}, host
    for host in HONEST_HOSTS + CAPITAL_HOSTS * ours:
        assert asked(server, path, [("Host", host.format(port=port))]) == 200, host


@pytest.mark.parametrize("which", ["prefect", "mlflow"])
def test_a_request_with_two_hosts_or_no_host_is_refused(servers, which):
    server = getattr(servers, which)
    path, own = {"prefect": "/api/health", "mlflow": MLFLOW_PATH}[which], server.rpartition("/")[2]
    for hosts in ([own, "evil.example"], ["evil.example", own], [own, own], []):
        assert asked(server, path, [("Host", host) for host in hosts]) in {400, 403}, hosts


def test_an_origin_is_taken_whole_and_once(servers):
    server, own = servers.prefect, servers.prefect.rpartition("/")[2]
    port = own.rpartition(":")[2]
    for origins in (
        [f"{server}.evil.example"], [f"{server}0"], [f"{server}@evil.example"], [f"{server}/"],
        ["http://127.0.0.1"], [f"http://localhost:{port}"], [f"https://{own}"], ["null"], [""],
        ["http://127.0.0.1.nip.io:" + port], [server, EVIL], [EVIL, server], [server, server],
    ):  # fmt: skip
        sent = [("Host", own), *(("Origin", origin) for origin in origins)]
        assert asked(server, "/api/health", sent) == 403, origins
    for host, origin in ((own, server), (own, server.upper()), ("LOCALHOST", "http://localhost")):
        assert asked(server, "/api/health", [("Host", host), ("Origin", origin)]) == 200, origin


@pytest.mark.parametrize("path", SOCKETS)
def test_a_websocket_of_another_page_is_refused(servers, path):
    address = f"{servers.prefect.replace('http', 'ws')}{path}"

    async def opened(token=None, **given):
        async with websockets.connect(address, subprotocols=["prefect"], **given) as socket:
            await socket.send(json.dumps({"type": "auth", "token": token}))
            return json.loads(await socket.recv())["type"]

    for given in ({"origin": EVIL}, {"additional_headers": {"Host": "evil.example"}}):
        with pytest.raises(websockets.InvalidStatus):
            asyncio.run(opened(auth_string(), **given))
    with pytest.raises(websockets.ConnectionClosedError):
        asyncio.run(opened("gill:wrong"))
    assert asyncio.run(opened(auth_string())) == "auth_success"
    assert asyncio.run(opened(auth_string(), origin=servers.prefect)) == "auth_success"


def test_without_the_key_nothing_is_told(servers):
    with httpx.Client(base_url=f"{servers.prefect}/api", timeout=60) as outsider:
        assert outsider.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Basic Z2lsbDp3cm9uZw=="}):
            assert outsider.get("/admin/version", headers=headers).status_code == 401
            assert outsider.get("/csrf-token?client=x", headers=headers).status_code == 401
    path = servers.var / "prefect" / "auth"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_with_the_key_a_forged_form_is_refused(servers):
    with httpx.Client(base_url=f"{servers.prefect}/api", timeout=60) as client:
        client.headers.update(servers.headers)
        assert client.post("/flow_runs/filter", json={}).status_code == 403


def test_a_flow_run_cannot_set_its_command_or_environment(insider, run):
    assert insider.post(run, json={"job_variables": {}}).status_code == 201
    for name, value in (("command", "id"), ("env", {"A": "1"}), ("working_dir", "/")):
        answer = insider.post(run, json={"job_variables": {name: value}})
        assert answer.status_code == 422, answer.text
        assert f"'{name}' was unexpected" in answer.text


def test_pages_stay_at_home_and_the_link_needs_no_typing(servers):
    link, _, key = page_link().partition("#")
    assert servers.headers["Authorization"] == f"Basic {key}"
    with httpx.Client(timeout=60, headers={"Accept": "text/html"}, follow_redirects=True) as client:
        for address in (link, servers.prefect):
            page = client.get(address)
            assert page.status_code == 200
            assert "default-src 'self'" in page.headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        assert key not in client.get(link).text


def test_clients_of_this_checkout_get_in(servers):
    from prefect.client.orchestration import get_client

    ours = {PREFECT_API_URL: f"{servers.prefect}/api", PREFECT_API_AUTH_STRING: auth_string()}
    with temporary_settings(ours), get_client(sync_client=True) as client:
        assert client.read_work_pool("gill").type == "process"


def test_mlflow_refuses_foreign_hosts_and_origins(servers):
    search = {"max_results": 1}
    with httpx.Client(base_url=servers.mlflow, timeout=60) as client:

        def ask(**headers):
            path = "/ajax-api/2.0/mlflow/experiments/search"
            return client.post(path, json=search, headers=headers)

        assert ask().status_code == 200
        assert ask(Origin=servers.mlflow).status_code == 200
        assert ask(Host="evil.example").status_code == 403
        for origin in (EVIL, "null"):
            answer = ask(Origin=origin)
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
        assert client.get("/").headers["X-Frame-Options"] == "SAMEORIGIN"


def test_what_servers_write_is_for_their_user_alone(servers):
    others = {
        path.relative_to(servers.var).as_posix()
        for path in [servers.var, *servers.var.rglob("*")]
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077
    }
    assert not others
