"""The automations do on a real server what they say: settle silent runs, tell of failed ones."""

import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Failed, Running

from flows.local import automations
from flows.local.environment import auth_string


@flow(name="gill")
def probe():
    """Stands for the pipeline's flow."""


@pytest.fixture
def client(servers):
    ours = {PREFECT_API_URL: f"{servers.prefect}/api", PREFECT_API_AUTH_STRING: auth_string()}
    with temporary_settings(ours), get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def listener():
    """A server of the user's that is told of failures: its address and what it got."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


def within(seconds, condition):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.3)
    return False


def is_crashed(client, run_id):
    return client.read_flow_run(run_id).state.is_crashed()


def test_a_run_without_a_heartbeat_is_settled(client, insider):
    automations.ensure(silence=timedelta(seconds=10))
    silent, quiet = (client.create_flow_run(probe, state=Running()).id for _ in range(2))
    for _ in range(4):  # the server hears of an automation a moment after it was made
        beat = {
            "id": str(uuid.uuid4()),
            "event": "prefect.flow-run.heartbeat",
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": f"prefect.flow-run.{silent}"},
        }
        assert insider.post("/events", json=[beat]).status_code == 204
        time.sleep(1)
    assert within(90, lambda: is_crashed(client, silent))
    assert "no heartbeat for 10 s" in client.read_flow_run(silent).state.message
    assert client.read_flow_run(quiet).state.is_running(), "it never gave one: nothing is known"
    automations.ensure()
    (found,) = client.read_automations_by_name(automations.ZOMBIES)
    assert found.trigger.within == automations.SILENCE
    assert found.enabled


def test_failures_are_told_through_the_block_that_the_user_named(client, listener, monkeypatch):
    from prefect.blocks.webhook import Webhook

    address, got = listener
    monkeypatch.setenv(automations.NOTIFY, "webhook/mine")
    with pytest.raises(automations.BlockError, match=r"'webhook/mine', which is not there"):
        automations.ensure()
    Webhook(url=address).save("mine")
    automations.ensure()
    run = client.create_flow_run(probe, state=Running(), name="unlucky")
    client.set_flow_run_state(run.id, Failed(message="no images"), force=True)
    assert within(60, lambda: got)
    assert "unlucky" in got[0]
