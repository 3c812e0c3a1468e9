"""Links to the pages of the MLflow UI that compare trials, and the modes of using several devices."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from mis.track.base import SCALING, TRAIN, TUNE
from mis.track.names import PARENT_RUN_TAG

STUDY_PAGE = "figures/study.html"
"""The path of a study's interactive figures among the artifacts of its run."""


@dataclass(frozen=True)
class Link:
    """A page of the MLflow UI.

    Attributes:
        key: The name of the page for programs: `tune.runs`, `tune.charts`, `tune.compare`, ...
        title: The title of the page for people.
        url: The address of the page.
    """

    key: str
    title: str
    url: str


class RunCatalogue(Protocol):
    """The experiments and runs that have been recorded; `MlflowTracker` implements it."""

    def experiment_id(self, name: str) -> str | None:
        """Return the id of an experiment, or None where there is no such experiment."""

    def last_study(self, experiment: str) -> tuple[str, list[str]] | None:
        """Return the id of the newest run with child runs, and the ids of these; None where no run has any."""


def runs_url(base_url: str, experiment_id: str) -> str:
    """Return the address of the table of an experiment's runs.

    Without `workflowType` the UI opens its pages for language models.

    >>> runs_url("http://127.0.0.1:5000", "1")
    'http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning'
    """
    return f"{base_url}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def charts_url(base_url: str, experiment_id: str, parent: str | None = None) -> str:
    """Return the address of the charts of an experiment's runs, or only of the child runs of `parent`.

    The charts draw the visible rows of the table, in which child runs are hidden until their parent is expanded. Child
    runs are rows of their own only where the table is filtered, and sorted by something other than the date.
    """
    url = f"{runs_url(base_url, experiment_id)}&compareRunsMode=CHART"
    if parent is None:
        return url
    search, order = quote(f"tags.{PARENT_RUN_TAG} = '{parent}'", safe=""), quote("tags.`mlflow.runName`", safe="")
    return f"{url}&searchFilter={search}&orderByKey={order}&orderByAsc=true"


def compare_url(base_url: str, experiment_id: str, run_ids: Sequence[str]) -> str:
    """Return the address of the comparison of runs: parallel coordinates, and their parameters side by side."""
    runs, experiments = (quote(json.dumps(ids), safe="") for ids in (list(run_ids), [experiment_id]))
    return f"{base_url}/#/compare-runs?runs={runs}&experiments={experiments}&workflowType=machine_learning"


def artifact_url(base_url: str, experiment_id: str, run_id: str, path: str) -> str:
    """Return the address of the page that shows an artifact of a run."""
    return f"{base_url}/#/experiments/{experiment_id}/runs/{run_id}/artifacts/{path}"


def comparison_links(base_url: str, catalogue: RunCatalogue) -> list[Link]:
    """Return the links to the pages of all experiments that exist."""
    return [*_train_links(base_url, catalogue), *_tune_links(base_url, catalogue), *_scaling_links(base_url, catalogue)]


def _train_links(base_url: str, catalogue: RunCatalogue) -> Iterator[Link]:
    if train := catalogue.experiment_id(TRAIN):
        yield Link("train.runs", "trainings", runs_url(base_url, train))
        yield Link("train.charts", "training curves", charts_url(base_url, train))


def _tune_links(base_url: str, catalogue: RunCatalogue) -> Iterator[Link]:
    if not (tune := catalogue.experiment_id(TUNE)):
        return
    yield Link("tune.runs", "studies, their trials below them", runs_url(base_url, tune))
    if last := catalogue.last_study(TUNE):
        study, trials = last
        yield Link("tune.charts", "curves of the last study's trials", charts_url(base_url, tune, study))
        yield Link("tune.compare", "the last study's trials compared", compare_url(base_url, tune, trials))
        yield Link("tune.figures", "the last study's figures", artifact_url(base_url, tune, study, STUDY_PAGE))


def _scaling_links(base_url: str, catalogue: RunCatalogue) -> Iterator[Link]:
    if scaling := catalogue.experiment_id(SCALING):
        yield Link("scaling.runs", "the modes compared, their cells below them", runs_url(base_url, scaling))
        yield Link("scaling.charts", "speed-up over devices", charts_url(base_url, scaling))
