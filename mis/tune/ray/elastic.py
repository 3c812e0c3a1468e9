"""A scheduler of Ray Tune that gives idle devices to running trials, around one that stops trials early.

At the end of an epoch, when its checkpoint is written, a trial whose devices change is paused, and at once started
again with others. Ray's own ResourceChangingScheduler does not keep processes for later trials, and wants the same
resources for all trials.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler

from mis.track.names import EPOCH_S
from mis.train.allocate import Node, Share
from mis.tune.allocation import Place
from mis.tune.elastic import ElasticAllocation
from mis.tune.epochs import EPOCH
from mis.tune.ray.messages import ATTEMPT, FINISHED, NODE, suggested_trial
from mis.tune.ray.placing import Nodes, request_at
from mis.tune.ray.schedulers import StudyScheduler
from mis.tune.trial import Trial, trial_name
from mis.words import counted

LOOK_S = 2.0
"""Seconds between two looks at the nodes of the cluster."""


class ElasticScheduler(TrialScheduler):  # type: ignore[misc]  # Ray's classes are Any here
    """Changes the devices of trials that a scheduler lets go on.

    Attributes:
        stopper: The scheduler that decides which trials go on.
        allocation: Who has which devices.
        nodes: The nodes of the cluster.
        share: What a trial has that waits for whatever devices are free first.
        limit: The most devices that are used in all; None uses all.
        alive_nodes: Returns the nodes that are there now.
        sizes: Returns the numbers of devices that a trial can be spread over.
        epochs: Returns how many epochs a trial has had, by its number.
        say: Takes a line for the user.
        moving: The trials that are being paused, by Ray's id.
        stranded: The trials that waited for devices of a node that is gone, and wait for others by now.
    """

    def __init__(
        self,
        stopper: StudyScheduler,
        allocation: ElasticAllocation,
        nodes: Nodes,
        share: Share,
        *,
        limit: int | None,
        alive_nodes: Callable[[], Sequence[Node]],
        sizes: Callable[[Trial], tuple[int, ...]],
        epochs: Callable[[int], int],
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.stopper = stopper
        self.allocation = allocation
        self.nodes = nodes
        self.share = share
        self.limit = limit
        self.alive_nodes = alive_nodes
        self.sizes = sizes
        self.epochs = epochs
        self.say = say
        self.moving: dict[str, RayTrial] = {}
        self.stranded: list[RayTrial] = []
        self._looked_at = time.monotonic()

    def __getstate__(self) -> dict[str, object]:
        """Leave out what belongs to this process: Ray Tune stores its schedulers with its own state."""
        return {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Pass on what is compared."""
        return bool(self.stopper.set_search_properties(metric, mode, **spec))

    def on_trial_add(self, controller: Any, trial: RayTrial, **info: Any) -> None:
        """Give a trial that begins its devices; one that is tried again has them already, or waits for them."""
        self.stopper.on_trial_add(controller, trial, **info)
        number = suggested_trial(trial.config).number
        if self.allocation.place(number) is None and not self.allocation.waits(number):
            self._begin(trial)

    def on_trial_error(self, controller: Any, trial: RayTrial, **info: Any) -> None:
        """Take back the devices of a trial that has failed; one that is tried again gets some: its node may be lost."""
        self.stopper.on_trial_error(controller, trial, **info)
        self._forget(trial)
        if trial.status == RayTrial.ERROR:  # it will be tried again; otherwise Ray calls this before it says so
            self._begin(trial)

    def on_trial_result(self, controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Return what becomes of a trial after an epoch."""
        decision = str(self.stopper.on_trial_result(controller, trial, result))
        suggested = suggested_trial(trial.config)
        if self.allocation.waits(suggested.number):
            self._find(suggested.number, result)
        place = self.allocation.place(suggested.number)
        if place is None:
            return decision
        self.allocation.epoch_ended(
            suggested.number, int(result[EPOCH]), float(result[EPOCH_S]), result[ATTEMPT], self.sizes(suggested)
        )
        if decision != TrialScheduler.CONTINUE or result.get(FINISHED):
            return decision
        planned = self.allocation.goes_on_with(suggested.number)
        if planned == place:
            return decision
        self.moving[trial.trial_id] = trial
        self.say(
            f"trial {trial_name(suggested.number)} goes on with {counted(planned.devices, 'device')} after epoch "
            f"{result[EPOCH]}"
        )
        self.allocation.restart(suggested.number)
        return str(TrialScheduler.PAUSE)

    def on_trial_complete(self, controller: Any, trial: RayTrial, result: dict[str, Any], **info: Any) -> None:
        """Take back the devices of a trial that has ended."""
        self.stopper.on_trial_complete(controller, trial, result, **info)
        self._forget(trial)

    def on_trial_remove(self, controller: Any, trial: RayTrial, **info: Any) -> None:
        """Take back the devices of a trial that is stopped while it waits."""
        self.stopper.on_trial_remove(controller, trial, **info)
        self._forget(trial)

    def choose_trial_to_run(self, controller: Any, **info: Any) -> RayTrial | None:
        """Return a trial that was paused for other devices, or else what the scheduler chooses."""
        self._look_for_lost_nodes(controller)
        if self.stranded:
            return self.stranded.pop()
        for trial_id, trial in list(self.moving.items()):
            if trial.status == RayTrial.PAUSED:
                del self.moving[trial_id]
                place = self.allocation.place(suggested_trial(trial.config).number)
                if place is not None:
                    self._reserve(trial, place)
                return trial
        return self.stopper.choose_trial_to_run(controller, **info)

    def debug_string(self) -> str:
        """Return a line for Ray's own status."""
        return f"elastic: {self.stopper.debug_string()}"

    def _look_for_lost_nodes(self, controller: Any) -> None:
        """Give other devices to the trials that wait for those of a node that is gone: Ray would wait for ever."""
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        self._note_nodes()
        for trial in controller.get_trials():
            place = self.allocation.place(suggested_trial(trial.config).number)
            if trial.status == RayTrial.PENDING and place is not None and self._is_lost(place):
                _unstage(controller, trial)
                self._begin(trial)
                self.stranded.append(trial)

    def _is_lost(self, place: Place) -> bool:
        devices = self.nodes.devices(self.limit)
        return any(count > devices[node] for node, count in place.counts)

    def _note_nodes(self) -> None:
        self.nodes = self.nodes.now(self.alive_nodes())
        self.allocation.set_nodes(self.nodes.devices(self.limit))

    def _begin(self, trial: RayTrial) -> None:
        suggested = suggested_trial(trial.config)
        self._note_nodes()
        place = self.allocation.begin(suggested.number, self.sizes(suggested), self.epochs(suggested.number))
        if place is not None:
            self._reserve(trial, place)
        else:  # the first devices that are free, wherever
            trial.update_resources(self.stopper.request())

    def _find(self, number: int, result: dict[str, Any]) -> None:
        """Note where a trial is that has waited for whatever devices were free first."""
        names = [node.name for node in self.nodes.nodes]
        if self.share.processes == 1 and result[NODE] in names:
            place = Place(((names.index(result[NODE]), self.share.devices),))
            self.allocation.found(number, place, int(result[EPOCH]))

    def _reserve(self, trial: RayTrial, place: Place) -> None:
        trial.update_resources(request_at(place, self.nodes.nodes))

    def _forget(self, trial: RayTrial) -> None:
        self.moving.pop(trial.trial_id, None)
        self.allocation.end(suggested_trial(trial.config).number)


def _unstage(controller: Any, trial: RayTrial) -> None:
    """Take back what Ray Tune has asked the cluster for a trial that waits; it has no public way to do so."""
    tune_controller = controller._tune_controller
    if trial in tune_controller._staged_trials:
        tune_controller._unstage_trial_with_resources(trial)
    actor = tune_controller._trial_to_actor.pop(trial, None)
    if actor is not None:
        tune_controller._actor_to_trial.pop(actor, None)
        tune_controller._remove_actor(tracked_actor=actor)
    # The trial is in the set of those that wait for the same devices; Ray adds it to another one when it is staged.
    tune_controller._resources_to_pending_trials[trial.placement_group_factory].discard(trial)
