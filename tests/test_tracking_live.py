"""A sweep in MLflow while it runs: what goes on is said to, and what is over is as if it had been
shown at the end alone."""

import pytest
from summaries import histories, samples, sweep, typed
from test_tracking import client, exhibits, view

from raycib.tracking import Tracker, track, tracker
from raycib.tracking.server import Server
from raycib.tracking.session import tracking_room

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")


@pytest.fixture(params=["database", "server"])
def place(request, monkeypatch, tmp_path):
    """A folder whose database is written at once, or run by run as at a server."""
    if request.param == "server":
        monkeypatch.setattr(tracker, "_runs", Server)
    return tmp_path


def begun(summary, of):
    """The sweep before anything has scores, and what of it has begun."""
    early = {**summary, "cells": [
        {**cell, "scores": None, "failed": "not finished: no answers"} for cell in summary["cells"]
    ]}  # fmt: skip
    unfinished = {cell["key"]: None for cell in early["cells"]} | dict.fromkeys(of, 1_000_000)
    return typed(early), unfinished


def shown(folder):
    """Runs by key: status, steps of a curve, end."""
    mlflow = client(folder)
    runs = mlflow.search_runs([mlflow.get_experiment_by_name("raycib").experiment_id])
    return {
        run.data.tags["raycib.key"]: (
            run.info.status,
            sorted(p.step for p in mlflow.get_metric_history(run.info.run_id, "train/task")),
            run.info.end_time,
        )
        for run in runs
    }


def test_a_run_begins_with_its_stage_and_ends_as_if_it_had_been_shown_at_the_end(place):
    summary = sweep(seeds=1, failed=False)
    curves, uri = histories(summary), f"sqlite:///{place}/mlflow.db"
    first, second, *_ = [cell["key"] for cell in summary["cells"]]
    steps = {key: history[-1]["step"] for key, history in curves.items()}

    def go_on(of, points):
        """Another process, which may find runs of one that was killed."""
        with tracking_room(uri):
            live = Tracker(uri, summary["sweep"])
            live.show(*begun(summary, of)[:1], {}, {}, {}, begun(summary, of)[1])
            for some in points:
                live.add_points(some, steps)
            return live

    half = {key: history[:10] for key, history in curves.items()}
    go_on([first], [{first: curves[first][:4]}, {first: curves[first][:10]}])
    assert shown(place) == {
        "": ("RUNNING", [], None), "aligned": shown(place)["aligned"],
        first: ("RUNNING", [entry["step"] for entry in half[first]], None),
    }  # fmt: skip
    live = go_on([first, second], [{first: curves[first][:14], second: half[second]}])
    found = shown(place)
    assert set(found) == {"", "aligned", first, second}
    assert found[first][1] == [entry["step"] for entry in curves[first][:14]], "each once"
    with tracking_room(uri):
        live.stop()
    assert {shown(place)[key][0] for key in ("", first, second)} == {"KILLED"}

    given = samples(summary, 12)
    folder = exhibits(place, summary)
    assert track(typed(summary), curves, folder, samples=given)
    late = place / "late"
    late.mkdir()
    assert track(typed(summary), curves, exhibits(late, summary), samples=given)
    live_view, late_view = view(place), view(late)
    for one in (*live_view.values(), *late_view.values()):
        one.pop("start")  # a run that was seen to begin says when
    assert live_view == late_view
    assert all(status == "FINISHED" for status, _, _ in shown(place).values())


def test_what_went_on_and_did_not_change_is_over_again(place):
    summary = sweep(seeds=1, failed=False)
    folder, uri = exhibits(place, summary), f"sqlite:///{place}/mlflow.db"
    assert track(typed(summary), {}, folder)
    key = summary["cells"][0]["key"]
    with tracking_room(uri):
        Tracker(uri, summary["sweep"]).show(
            begun(summary, [key])[0], {}, {}, {}, begun(summary, [key])[1]
        )
    assert shown(place)[key][0] == shown(place)[""][0] == "RUNNING"
    assert track(typed(summary), {}, folder)
    assert {status for status, _, _ in shown(place).values()} == {"FINISHED"}
    assert len(shown(place)) == 7


def test_two_sweeps_into_one_folder_at_once_go_on_in_the_same_runs(place):
    """The second process looked before the first one began a cell, and shows it after that."""
    summary = sweep(seeds=1, failed=False)
    uri, key = f"sqlite:///{place}/mlflow.db", summary["cells"][0]["key"]
    before, later = begun(summary, []), begun(summary, [key])
    with tracking_room(uri):
        first, second = (Tracker(uri, summary["sweep"]) for _ in range(2))
        for one, (results, unfinished) in ((first, before), (second, before), (first, later)):
            one.show(results, {}, {}, {}, unfinished)
        known = second._runs.known(summary["sweep"])
        second.show(later[0], {}, {}, {}, later[1])
        assert second._runs.known(summary["sweep"]) == known
        curve = histories(summary)[key]
        for one, until in ((first, 4), (second, 10), (first, 14)):  # the stage is the first one's
            one.add_points({key: curve[:until]}, {key: curve[-1]["step"]})
    assert shown(place)[key][1] == [entry["step"] for entry in curve[:14]], "each once"
    mlflow = client(place)
    runs = mlflow.search_runs([mlflow.get_experiment_by_name("raycib").experiment_id])
    assert [run.data.tags["raycib.key"] for run in runs].count(key) == 1
