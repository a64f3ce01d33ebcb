"""Automations of the local Prefect server: runs without a heartbeat are settled, failures told.

The first needs no setting. For the second the user makes a block on Prefect's page, such as an
e-mail or a webhook, and names it in ``GILL_NOTIFY_BLOCK`` as type/name, e.g. slack-webhook/mine.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events import AutomationCore

NOTIFY = "GILL_NOTIFY_BLOCK"
ZOMBIES, FAILURES = "gill: settle runs without a heartbeat", "gill: tell of failed runs"
# A heartbeat comes every 30 s. A loaded machine is late with it and must not lose a live run.
SILENCE = timedelta(minutes=10)
_RUNS = {"prefect.resource.id": "prefect.flow-run.*"}
_TOLD = '{"run": "{{ flow_run.name }}", "message": {{ flow_run.state.message|tojson }}}'
_ENDS = [f"prefect.flow-run.{end}" for end in ("Completed", "Failed", "Crashed", "Cancelled")]


class BlockError(LookupError):
    """The block that the user named is not there or cannot tell anything."""


def ensure(silence: timedelta = SILENCE) -> None:
    """Make the automations, or bring them to this version.

    Raises:
        BlockError: ``GILL_NOTIFY_BLOCK`` names a block that is not there.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        _put(client, _zombies(silence))
        named = os.environ.get(NOTIFY)
        if named:
            _put(client, _failures(client, named))


def _put(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    found = client.read_automations_by_name(wanted.name)
    if found:
        client.update_automation(found[0].id, wanted)
    else:
        client.create_automation(wanted)


def _zombies(silence: timedelta) -> AutomationCore:
    from prefect.client.schemas.objects import StateType
    from prefect.events import AutomationCore, EventTrigger, Posture
    from prefect.events.actions import ChangeFlowRunState

    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name=ZOMBIES,
        description="A flow run whose process is gone, also its worker's: marked as crashed.",
        trigger=EventTrigger(
            after={beat},
            expect={beat, *_ENDS},
            match=_RUNS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no heartbeat for {silence.total_seconds():.0f} s; run it again",
            )
        ],
    )


def _failures(client: SyncPrefectClient, named: str) -> AutomationCore:
    from prefect.events import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=FAILURES,
        description=f"Uses the block {named}, which {NOTIFY} names.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match=_RUNS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[_telling(client, named)],
    )


def _telling(client: SyncPrefectClient, named: str) -> Any:
    from prefect.events.actions import CallWebhook, SendNotification
    from prefect.exceptions import ObjectNotFound

    kind, _, name = named.partition("/")
    try:
        block = client.read_block_document_by_name(name, kind)
    except ObjectNotFound as error:
        raise BlockError(
            f"{NOTIFY} names the block {named!r}, which is not there; it is type/name of a block "
            "that you make on the page Blocks of Prefect, such as slack-webhook/mine"
        ) from error
    if kind == "webhook":
        return CallWebhook(block_document_id=block.id, payload=_TOLD)
    return SendNotification(
        block_document_id=block.id,
        subject="{{ flow_run.name }}: {{ flow_run.state.name }}",
        body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
