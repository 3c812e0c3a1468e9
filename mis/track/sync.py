"""`python -m mis.track sync`: what waits in outboxes goes to MLflow, also from a machine that has no network itself."""

import sys
import time
from pathlib import Path

from tqdm import tqdm

from mis.errors import MisError
from mis.settings import Settings
from mis.track.base import RunStore
from mis.track.outbox import HeldError, claimed, count_waiting, outboxes
from mis.track.recording import connect, waiting_line
from mis.track.sender import FIRST_PAUSE_S, LONGEST_PAUSE_S, DamagedError, Delivery, Warn
from mis.track.store import location_of, name_of_store, reason_of, tracking_uri
from mis.words import counted

PATIENCE_S = 30.0
"""Seconds in which the store may take nothing before the rest is left waiting."""


def sync(settings: Settings, folder: Path | None, say: Warn) -> int:
    """Deliver what waits, and remove what is delivered; what was delivered before changes nothing.

    Args:
        settings: The machine's settings.
        folder: An outbox, a folder of outboxes, `mlruns` or the folder that has it, which may have been copied from
            elsewhere. None takes the outboxes of this project that wait for this store.
        say: Takes a line for the user.

    Returns:
        0 where all is delivered, 1 where something still waits.

    Raises:
        MisError: The folder does not exist, or the tracking URI is of an unknown kind.
    """
    uri = tracking_uri(settings)
    if folder is not None and not folder.is_dir():
        raise MisError("sync takes an outbox, or a folder of outboxes", got=f"{folder}, which is no folder")
    where = folder or settings.outboxes
    found = next(filter(None, (outboxes(where / below) for below in ("", "outbox", "mlruns/outbox"))), [])
    if not found:
        say(f"nothing waits in {where}")
        return 0
    try:
        store = connect(settings)
    except MisError as error:
        say(f"MLflow does not answer: {error}")
        say(waiting_line(where))
        return 1
    names = None if folder is not None else name_of_store(settings)
    delivered = [_sync_outbox(outbox, store, names, say) for outbox in found]
    if not all(delivered):
        return 1
    say(f"all is delivered to {location_of(uri)}")
    return 0


def _sync_outbox(outbox: Path, store: RunStore, name: str | None, say: Warn) -> bool:
    """Deliver an outbox and return whether nothing of it waits.

    Args:
        outbox: The outbox.
        store: Where it goes.
        name: The name of the store; an outbox that waits for another one is left. None takes any.
        say: Takes a line for the user.
    """
    try:
        with claimed(outbox):
            delivery = Delivery(outbox, say=say)
            if name is not None and delivery.store not in (name, None):
                say(
                    f"{outbox} waits for {delivery.store}: name it in MLFLOW_TRACKING_URI, or give sync this folder to "
                    f"deliver it to {name}"
                )
                return False
            return _deliver(delivery, store, say)
    except HeldError:
        say(f"{outbox} is left to its process, which lives and delivers it")
    except DamagedError as error:
        say(str(error))
    return False


def _deliver(delivery: Delivery, store: RunStore, say: Warn) -> bool:
    """Deliver an outbox to its end, or until the store has taken nothing for some seconds."""
    operations, runs = count_waiting(delivery.folder)
    pause_s, deadline = FIRST_PAUSE_S, time.monotonic() + PATIENCE_S
    with tqdm(total=operations, desc=delivery.folder.name, unit="operation", file=sys.stderr) as bar:
        while True:
            try:
                sent = delivery.step(store)
                if not sent:
                    delivery.finish(store)
            except DamagedError:
                raise
            except Exception as error:  # whatever a store, or the network before it, may raise
                delivery.mark()
                if time.monotonic() > deadline:
                    left = counted(count_waiting(delivery.folder)[0], "operation")
                    bar.write(f"{left} still wait in {delivery.folder}: {reason_of(error)}", file=sys.stderr)
                    return False
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            if not sent:
                break
            bar.update(sent)
            pause_s, deadline = FIRST_PAUSE_S, time.monotonic() + PATIENCE_S
    say(f"{delivery.folder}: delivered {counted(operations, 'operation')} of {counted(runs, 'run')}")
    return True
