import json
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from mis.track.base import SCALING, TRAIN, TUNE
from mis.track.links import charts_url, compare_url, comparison_links

BASE = "http://127.0.0.1:5000"


@dataclass
class Catalogue:
    """A catalogue of runs without a store."""

    ids: dict[str, str] = field(default_factory=dict)
    study: tuple[str, list[str]] | None = None

    def experiment_id(self, name):
        return self.ids.get(name)

    def last_study(self, experiment):
        return self.study if experiment == TUNE else None


def query(url):
    return {name: values[0] for name, values in parse_qs(url.partition("?")[2]).items()}


def test_every_experiment_has_its_pages():
    links = comparison_links(BASE, Catalogue({TRAIN: "1", TUNE: "2", SCALING: "3"}, ("s", ["a", "b"])))
    pages = [
        "train.runs",
        "train.charts",
        "tune.runs",
        "tune.charts",
        "tune.compare",
        "tune.figures",
        "scaling.runs",
        "scaling.charts",
    ]
    assert [link.key for link in links] == pages
    assert all(link.url.startswith(f"{BASE}/#/") and " " not in link.url for link in links)
    tables = [link.url for link in links if link.key != "tune.figures"]
    assert all(query(url)["workflowType"] == "machine_learning" for url in tables)


def test_what_has_not_been_recorded_has_no_link():
    assert comparison_links(BASE, Catalogue()) == []
    assert [link.key for link in comparison_links(BASE, Catalogue({TUNE: "2"}))] == ["tune.runs"]


def test_trials_are_compared_by_their_ids():
    url = compare_url(BASE, "2", ["a", "b"])
    assert json.loads(query(url)["runs"]) == ["a", "b"]
    assert json.loads(query(url)["experiments"]) == ["2"]


def test_charts_can_be_of_the_runs_below_one():
    assert "searchFilter" not in query(charts_url(BASE, "2"))
    below = query(charts_url(BASE, "2", "s"))
    assert below["searchFilter"] == "tags.mlflow.parentRunId = 's'"
    assert below["compareRunsMode"] == "CHART"
