"""A store that is written to through an outbox, with the methods of one: for the tests of what every tracker does."""

import time

from mis.track.outbox import Outbox
from mis.track.recording import OutboxTracker
from mis.track.sender import Sender


class ThroughOutbox:
    """Writes to an outbox, and reads from the store once all is delivered."""

    def __init__(self, folder, store):
        self.store = store
        self.said = []
        self.outbox = Outbox.create(folder, "store")
        self.sender = Sender(self.outbox, lambda: store, store, self.said.append)
        self.sender.start()
        self.tracker = OutboxTracker(self.outbox, self.sender, store.location())
        self.runs = {}

    def start_run(self, experiment, name, *, params=None, tags=None, parent=None):
        run = self.tracker.open_run(
            experiment, name, params=params, tags=tags, parent=self.runs.get(parent) if parent else None
        )
        self.flush()
        self.runs[run.id] = run
        return run

    def open_run(self, experiment, name, *, parent=None, **options):
        run = self.tracker.open_run(experiment, name, parent=parent, **options)
        self.flush()
        self.runs[run.id] = run
        return run

    def find_run(self, experiment, tags, *, go_on=True):
        self.flush()
        if self.store.find_run(experiment, tags, go_on=False) is None:
            return None
        if not go_on:
            return self.tracker.add_to_run(experiment, tags)
        return self.open_run(experiment, "found", key=tags)

    def flush(self):
        """Wait until all is delivered."""
        deadline = time.monotonic() + 60
        while not (self.sender._idle and self.sender._own.delivered == self.outbox.count):
            assert time.monotonic() < deadline, self.sender.failure
            time.sleep(0.001)
        assert not self.said

    def __getattr__(self, name):
        self.flush()
        return getattr(self.store, name)


def store_of(tracker):
    """Return the store behind an outbox, when it has all."""
    if isinstance(tracker, ThroughOutbox):
        tracker.flush()
        return tracker.store
    return tracker
