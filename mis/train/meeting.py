"""The meeting of workers that were started separately, before TensorFlow connects them.

TensorFlow waits for a worker that never comes, without a word and without end. So the workers meet first: the chief
listens at its own address, which TensorFlow takes only afterwards, and every other worker connects to it. One that
fails before it is ready says why, and the connection of one that is killed is closed: the others end, too. Messages
are lines of JSON.
"""

import errno
import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mis.errors import MisError, WorkerError
from mis.train.rendezvous import SAY_AGAIN_S, WAITING_S, Rendezvous
from mis.train.signals import ended_by

LINGER_S = 30.0
"""Seconds that a worker which fails waits for workers that it has not told yet, because they have just been started."""

GRACE_S = 2.0
"""Seconds for a last message to arrive."""

POLL_S = 0.2
"""Seconds between two looks, and between two attempts to reach the chief."""

ANSWER_S = 5.0
"""Seconds for an answer at the chief's address; what does not answer is not the chief, or not yet."""

SILENT_S = 20
"""Seconds after which the connection to a node that has fallen silent counts as closed."""

BACKLOG = 128
"""How many workers may connect at the same moment."""

LINE_BYTES = 2**16
"""The longest line that is read."""

CLOSED = "its process was killed, or its node was lost"
"""The reason why a connection was closed without a word."""


NOT_STARTED = "(not there yet)"
"""Stands after the name of a worker that nothing has been heard of."""


@dataclass(frozen=True)
class Failure:
    """Why a worker will not come.

    Attributes:
        worker: Its name.
        reason: What went wrong there, in one line.
        refused: Whether that was bad input.
    """

    worker: str
    reason: str
    refused: bool

    def error(self) -> MisError | WorkerError:
        """Return the error for another worker."""
        message = f"{self.worker} ended before the training began: {self.reason}"
        return MisError(message) if self.refused else WorkerError(message)


class Meeting:
    """The meeting as one worker attends it, from the beginning of the `with` block on.

    Where the block raises an error the others are told why.
    """

    def __init__(self, rendezvous: Rendezvous, say: Callable[[str], None]) -> None:
        """Prepare to attend.

        Args:
            rendezvous: The addresses of the workers, and the rank of this one.
            say: Takes a line for a person who wonders why nothing happens.
        """
        self.rendezvous = rendezvous
        self.failure: Failure | None = None
        self._say = say
        self._changed = threading.Condition()
        self._peers: dict[int, _Peer] = {}
        self._refused: set[int] = set()
        self._ready = self._all_ready = self._ended = False
        self._missing = [f"{rendezvous.name(0)} {NOT_STARTED}"]
        self._server: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._signals = ExitStack()

    @property
    def has_begun(self) -> bool:
        """Whether the block of the meeting has been entered."""
        return self._thread is not None

    @property
    def _others(self) -> range:
        """The ranks of the workers that this one is connected with: of all others in the chief, else the chief's."""
        return range(1, len(self.rendezvous.addresses)) if self._leads else range(1)

    @property
    def _leads(self) -> bool:
        return self.rendezvous.rank == 0

    def __enter__(self) -> "Meeting":
        self._signals.enter_context(ended_by(signal.SIGTERM, clean_up=lambda: self.leave_word("SIGTERM ended it")))
        if self._leads:
            self._server = self._listen()
        self._thread = threading.Thread(target=self._accept if self._leads else self._connect, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Exception) and not self._ended:
                self._fail(error)
            elif error is not None:
                self.leave_word("it was interrupted")
        finally:
            self._leave()

    def wait(self, limit_s: float) -> None:
        """Say that this worker is ready, and wait until all are.

        Args:
            limit_s: Seconds to wait for workers that have not begun.

        Raises:
            MisError: Another worker had bad input.
            WorkerError: Another worker failed otherwise, is gone, or did not come in time.
        """
        begun = time.monotonic()
        say_at = begun + WAITING_S
        with self._changed:
            self._ready = True
            self._tell({"ready": True} if not self._leads else self._who_is_missing())
            while not (self._all_ready or (self._leads and not self._not_ready())):
                self.raise_failure()
                now = time.monotonic()
                missing = ", ".join(self._not_ready() if self._leads else self._missing)
                if now - begun > limit_s:
                    raise WorkerError(
                        f"{self.rendezvous.name()} waited {limit_s:g} s (distribute.stall_s) for {missing}; look at "
                        "their output"
                    )
                if now > say_at:
                    self._say(f"{self.rendezvous.name()} is waiting for {missing}, at most {limit_s:g} s")
                    say_at = now + SAY_AGAIN_S
                self._changed.wait(POLL_S)
            self.raise_failure()
            self._all_ready = True
        self._close_server()  # TensorFlow takes the port
        self._tell({"all ready": True})

    def raise_failure(self) -> None:
        """Raise the error for another worker that has failed, where there is one."""
        if self.failure is not None:
            raise self.failure.error()

    def end(self) -> None:
        """End the meeting: from now on TensorFlow watches whether the others are there."""
        self._tell({"ended": True})
        self._leave()

    def leave_word(self, reason: str) -> None:
        """Tell those that are connected, while there is time for no more, that this worker ends."""
        self.rendezvous.remove_address_file()
        if not self._ended:
            self._tell({"failed": vars(Failure(self.rendezvous.name(), reason, refused=False))})

    def _leave(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for peer in self._peers.values():
            peer.close()
        self._close_server()
        self._signals.close()
        self.rendezvous.remove_address_file()

    # ---- How they connect ----

    def _listen(self) -> socket.socket:
        _, port = _split(self.rendezvous.addresses[0])
        try:
            try:
                server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
            except (OSError, ValueError) as error:  # without IPv6
                if getattr(error, "errno", None) == errno.EADDRINUSE:
                    raise
                server = socket.create_server(("", port), backlog=BACKLOG)
        except OSError as error:
            raise MisError(
                f"the port of {self.rendezvous.name()} must be free ({os.strerror(error.errno or 0)})",
                got=self.rendezvous.addresses[0],
                do="end what listens there, or name another port",
            ) from None
        server.settimeout(POLL_S)
        return server

    def _accept(self) -> None:
        """Let workers connect, until the meeting has ended or all are ready."""
        server = self._server
        if server is None:
            raise RuntimeError("the chief listens first")
        with closing(server):
            while not (self._ended or self._all_ready):
                with suppress(OSError):  # nobody has connected meanwhile, or has gone again
                    connection, _ = server.accept()
                    threading.Thread(target=self._welcome, args=[_Peer(connection)], daemon=True).start()

    def _close_server(self) -> None:
        if self._leads and self._thread is not None:
            self._thread.join()

    def _welcome(self, peer: "_Peer") -> None:
        """Hear who has connected, and listen to that worker until its end."""
        messages = peer.messages()
        hello = next(messages, {})
        rank, addresses = hello.get("rank"), hello.get("addresses")
        if not (isinstance(rank, int) and rank in self._others and isinstance(addresses, list)):
            peer.close()  # something else that tries ports
            return
        with self._changed:
            refusal = None
            others = addresses != list(self.rendezvous.addresses)
            if others:
                refusal = f"all workers must name the same addresses, got {', '.join(map(str, addresses))}"
            elif rank in self._peers:
                refusal = "it was started twice"
            if refusal is not None:
                refused = Failure(self.rendezvous.name(rank), refusal, refused=True)
                peer.send({"failed": vars(refused)})
                peer.close()
                if others:
                    self._refused.add(rank)
                    self._hear(refused)
                return
            self._peers[rank] = peer
            peer.send({"welcome": True})
            if self.failure is not None:
                peer.send({"failed": vars(self.failure)})
            self._changed.notify_all()
            self._tell(self._who_is_missing())
        self._listen_to(rank, peer, messages)

    def _connect(self) -> None:
        """Reach the chief, which may not have been started yet, and listen to it until its end."""
        while not self._ended:
            with suppress(OSError):
                peer = _Peer(socket.create_connection(_split(self.rendezvous.addresses[0]), timeout=ANSWER_S))
                try:
                    if self._introduce(peer):
                        return
                finally:
                    peer.close()
            with self._changed:
                self._changed.wait_for(lambda: self._ended, POLL_S)

    def _introduce(self, peer: "_Peer") -> bool:
        """Tell the chief who this is, and listen to it until its end; return whether it was the chief."""
        peer.send({"rank": self.rendezvous.rank, "addresses": list(self.rendezvous.addresses)})
        messages = peer.messages()
        answer = next(messages, {})
        with self._changed:
            if "failed" in answer:
                self._hear(Failure(**answer["failed"]))
            elif "welcome" in answer:
                self._peers[0] = peer
                if self._ready:
                    peer.send({"ready": True})
                self._changed.notify_all()
        if "welcome" in answer:
            self._listen_to(0, peer, messages)
        return "failed" in answer or "welcome" in answer

    # ---- What they say ----

    def _listen_to(self, rank: int, peer: "_Peer", messages: Iterator[dict[str, Any]]) -> None:
        for message in messages:
            with self._changed:
                peer.ready |= "ready" in message
                peer.ended |= "ended" in message
                self._all_ready |= "all ready" in message
                self._missing = message.get("missing", self._missing)
                if "failed" in message:
                    self._hear(Failure(**message["failed"]))
                elif self._leads and "ready" in message:
                    self._tell(self._who_is_missing())
                self._changed.notify_all()
        with self._changed:
            peer.closed = True
            if not (peer.ended or self._ended):
                self._hear(Failure(self.rendezvous.name(rank), CLOSED, refused=False))
            self._changed.notify_all()

    def _hear(self, failure: Failure) -> None:
        """Keep the first failure, which the others follow from; the chief tells it on."""
        if self.failure is None:
            self.failure = failure
            if self._leads:
                self._tell({"failed": vars(failure)})
            self._changed.notify_all()

    def _tell(self, message: dict[str, Any]) -> None:
        """Send a message to all that are connected."""
        for peer in list(self._peers.values()):
            peer.send(message)

    def _not_ready(self) -> list[str]:
        """Return the names of the workers that are not ready; only the chief knows."""
        late = [] if self._ready else [self.rendezvous.name(0)]
        for rank in self._others:
            name = self.rendezvous.name(rank)
            if rank not in self._peers:
                late.append(f"{name} {NOT_STARTED}")
            elif not self._peers[rank].ready:
                late.append(name)
        return late

    def _who_is_missing(self) -> dict[str, Any]:
        return {"missing": self._not_ready()}

    def _fail(self, error: Exception) -> None:
        """Tell the others that this worker ends, and why; those that have just been started are waited for."""
        with self._changed:
            if self.failure is None:
                refused = isinstance(error, MisError)
                reason = str(error) if refused else traceback.format_exception_only(error)[-1].strip()
                own = Failure(self.rendezvous.name(), reason, refused)
                self.failure = own
                self._tell({"failed": vars(own)})
            elif not self._leads:
                return  # the chief knows, and tells the others
            failure = self.failure
            if not self._all_ready and not self._changed.wait_for(self._all_told, GRACE_S):
                self._say(
                    f"{self.rendezvous.name()} ends ({failure.worker}: {failure.reason}) when the others know, after "
                    f"{LINGER_S:.0f} s at the latest"
                )
                self._changed.wait_for(self._all_told, LINGER_S)
            if not self._leads:
                self._tell({"failed": vars(failure)})  # to a chief that has come meanwhile
            for peer in self._peers.values():
                peer.finish()
            self._changed.wait_for(lambda: all(peer.closed for peer in self._peers.values()), GRACE_S)

    def _all_told(self) -> bool:
        return all(rank in self._peers or rank in self._refused for rank in self._others)


class _Peer:
    """The connection to another worker.

    Attributes:
        ready: Whether that worker has said that it is ready.
        ended: Whether it has said that TensorFlow has connected it.
        closed: Whether the connection is closed.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.ready = self.ended = self.closed = False
        self._connection = connection
        connection.settimeout(ANSWER_S)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", SILENT_S // 2), ("TCP_KEEPINTVL", SILENT_S // 4), ("TCP_KEEPCNT", 2)):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; that the other one is gone is noticed where it is listened to."""
        with suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield messages until the connection is closed; the first must come within `ANSWER_S` seconds."""
        with suppress(OSError, ValueError), self._connection.makefile("rb") as lines:
            while line := lines.readline(LINE_BYTES):
                message = json.loads(line)
                if not isinstance(message, dict):
                    return
                self._connection.settimeout(None)
                yield message

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection, also for the thread that listens to it."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
