"""`python -m mis.track sync`: what waits in outboxes goes to MLflow, also from a machine that has no network itself."""

import sys
import time
from pathlib import Path

from tqdm import tqdm

from mis.errors import MisError
from mis.files import DiskFullError
from mis.settings import Settings
from mis.track.base import RunStore
from mis.track.outbox import (
    LOG,
    REFUSED,
    SYNC,
    DamagedError,
    HeldError,
    claimed,
    count_waiting,
    outboxes,
    put_back_refused,
    read_refused,
    refused_outboxes,
    waits_for_another,
)
from mis.track.recording import connect, waiting_line
from mis.track.sender import FIRST_PAUSE_S, LONGEST_PAUSE_S, SAID_REFUSALS, Delivery, Warn
from mis.track.store import location_of, name_of_store, reason_of, tracking_uri
from mis.words import counted

PATIENCE_S = 30.0
"""Seconds in which the store may take nothing before the rest is left waiting."""


def sync(settings: Settings, folder: Path | None, say: Warn, *, refused: bool = False) -> int:
    """Deliver what waits, and remove what is delivered; what was delivered before changes nothing.

    Args:
        settings: The machine's settings.
        folder: An outbox, a folder of outboxes, `mlruns` or the folder that has it, which may have been copied from
            elsewhere. None takes the outboxes of this project that wait for this store.
        say: Takes a line for the user.
        refused: Whether what the store has refused is tried again.

    Returns:
        0 where all is delivered, 1 where something still waits, or was refused.

    Raises:
        MisError: The folder does not exist, or the tracking URI is of an unknown kind.
    """
    uri = tracking_uri(settings)
    if folder is not None and not folder.is_dir():
        raise MisError("sync takes an outbox, or a folder of outboxes", got=f"{folder}, which is no folder")
    given = folder or settings.outboxes
    places = [given, given / "outbox", given / "mlruns/outbox"]
    place = next((place for place in places if outboxes(place) or refused_outboxes(place)), given)
    found = sorted({*outboxes(place), *(refused_outboxes(place) if refused else ())})
    if not found:
        say(f"nothing waits in {given}")
        return 1 if _say_refused(place, say) else 0
    try:
        store = connect(settings)
    except MisError as error:
        say(f"MLflow does not answer: {error}")
        say(waiting_line(place))
        return 1
    name = None if folder is not None else name_of_store(settings)
    delivered = [_sync_outbox(outbox, store, name, say, refused=refused) for outbox in found]
    if _say_refused(place, say) or not all(delivered):
        return 1
    say(f"all is delivered to {location_of(uri)}")
    return 0


def _say_refused(place: Path, say: Warn) -> bool:
    """Say what was refused of the outboxes of a folder, and return whether anything was."""
    found = refused_outboxes(place)
    for outbox in found:
        try:
            kept = read_refused(outbox)
        except (OSError, DamagedError) as error:
            say(f"{outbox / REFUSED} cannot be read: {reason_of(error)}")
            continue
        named = [f"{refusal.operation.kind} ({refusal.reason})" for refusal in kept[:SAID_REFUSALS]]
        named += ["..."] if len(kept) > SAID_REFUSALS else []
        verb = "was" if len(kept) == 1 else "were"
        say(f"{counted(len(kept), 'operation')} {verb} refused, kept in {outbox / REFUSED}: {', '.join(named)}")
    if found:
        say(f"`{SYNC} --refused` tries again what was refused; who does not need it deletes its folder")
    return bool(found)


def _sync_outbox(outbox: Path, store: RunStore, name: str | None, say: Warn, *, refused: bool) -> bool:
    """Deliver an outbox and return whether nothing of it waits.

    Args:
        outbox: The outbox.
        store: Where it goes.
        name: The name of the store; an outbox that waits for another one is left. None takes any.
        say: Takes a line for the user.
        refused: Whether what was refused before is tried again.
    """
    try:
        with claimed(outbox):
            is_refused_before = refused and (outbox / REFUSED).exists()
            if (outbox / LOG).exists() and not _sync_log(outbox, store, name, say):
                return False
            if not is_refused_before:
                return True
            put_back_refused(outbox)
            return _sync_log(outbox, store, name, say)
    except HeldError:
        say(f"{outbox} is left to its process, which lives and delivers it")
    except DamagedError as error:
        say(str(error))
    except (OSError, DiskFullError) as error:  # of another user, perhaps
        say(f"what waits in {outbox} is left there: {reason_of(error)}")
    return False


def _sync_log(outbox: Path, store: RunStore, name: str | None, say: Warn) -> bool:
    """Deliver what waits in an outbox that is claimed, if it waits for this store."""
    delivery = Delivery(outbox, say=say)
    if name is None or delivery.store in (name, None):
        return _deliver(delivery, store, say)
    say(waits_for_another(outbox, delivery.store, name))
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
                store.be_patient(error)
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
    taken = counted(operations - delivery.refused, "operation")
    say(f"{delivery.folder}: delivered {taken} of {counted(runs, 'run')}")
    return True
