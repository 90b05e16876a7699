"""MLflow as a view: complete, found again, made anew alike, and never in the way."""

import json
import logging
import math
import os
import socket
import time
from itertools import permutations
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
import scipy.stats
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from summaries import histories, rate, samples, sweep, typed

from raycib.commands.browse import links
from raycib.tracking import track, tracker
from raycib.tracking.server import Server
from raycib.tracking.shown import HEADLINE

INFORMATION = "mutual_information"


pytestmark = pytest.mark.usefixtures("no_mlflow_settings")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """One sweep in a fresh store: the store's folder, and what was shown."""
    folder = tmp_path_factory.mktemp("runs")
    summary = sweep()
    summary["correction"] = {
        "labels": "90 labels in labels.csv", "labelled": 90, "specificity": rate(0.9, 60),
        "sensitivity": None, "same_error_p": 0.3, "rows": [],
    }  # fmt: skip
    for cell in summary["cells"]:
        if cell["scores"]:
            cell["scores"]["hrr_rogan_gladen"] = rate(cell["scores"]["hrr"]["value"] / 2, 260)
    assert track(typed(summary), histories(summary), exhibits(folder, summary))
    return folder, summary


def test_rates_corrected_for_the_judges_error_are_metrics(tracked):
    folder, summary = tracked
    shown = view(folder)
    top, low = shown[""]["metrics"], summary["correction"]["specificity"]["low"]
    assert top["judge_error/specificity"] == 0.9 and top["judge_error/specificity_low"] == low
    assert top["judge_error/labels"] == 90 and "judge_error/sensitivity" not in top
    cell = summary["cells"][0]
    corrected = cell["scores"]["hrr_rogan_gladen"]["value"]
    assert shown[cell["key"]]["metrics"]["hrr_rogan_gladen"] == corrected


def test_correlations_of_seed_means_are_metrics_of_the_sweep_with_n_interval_and_p(tracked):
    """Held against scipy's own test of the means, and against all 24 orders of them."""
    folder, summary = tracked
    means = {
        name: [
            np.mean(
                [f(c["scores"]) for c in summary["cells"] if c["strength"] == at and c["scores"]]
            )
            for at in (1, 2, 5, 10)
        ]
        for name, f in (("hrr", lambda s: s["hrr"]["value"]), ("I", lambda s: s[INFORMATION]))
    }
    top = view(folder)[""]["metrics"]
    metric = f"correlation/{INFORMATION}/CIB/above 0"
    found = {name.rpartition("/")[2]: top[name] for name in top if name.startswith(f"{metric}/")}
    whole = scipy.stats.pearsonr(means["I"], means["hrr"])
    orders = [np.corrcoef(means["I"], some)[0, 1] for some in permutations(means["hrr"])]
    assert found == pytest.approx({
        "n": 4, "r": whole.statistic, "p_t": whole.pvalue,
        **whole.confidence_interval(0.95)._asdict(),
        "p_exact": np.mean(np.abs(orders) > abs(whole.statistic) - 1e-9),
        "rho": scipy.stats.spearmanr(means["I"], means["hrr"]).statistic,
    })  # fmt: skip
    spans = {name.split("/")[3] for name in top if name.startswith("correlation/")}
    assert spans == {"above 0", "from 0"}


def test_a_rate_has_its_interval_its_count_and_what_could_not_be_read(tracked):
    folder, summary = tracked
    shown = view(folder)
    for cell in summary["cells"]:
        if cell["scores"]:
            found, metrics = cell["scores"]["hrr"], shown[cell["key"]]["metrics"]
            assert metrics["more/hrr_n"] == found["n"]
            assert metrics.get("more/hrr_unread") == (found["unread"] or None)
            assert (metrics["hrr_low"], metrics["hrr_high"]) == (found["low"], found["high"])


def exhibits(folder, summary):
    place = folder / summary["sweep"]
    place.mkdir(exist_ok=True)
    (place / "summary.json").write_text(json.dumps(summary))
    (place / "report.html").write_text("<p>report</p>")
    return place


def client(folder):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")


def view(folder, experiment="raycib"):
    """All that MLflow holds of a sweep, without what differs by chance: ids, users, times."""
    mlflow = client(folder)
    runs = mlflow.search_runs([mlflow.get_experiment_by_name(experiment).experiment_id])
    shown = {}
    for run in runs:
        tags = {k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"}
        curves = {
            name: sorted(
                (p.step, p.value) for p in mlflow.get_metric_history(run.info.run_id, name)
            )
            for name in run.data.metrics
            if name.startswith("train/")
        }
        data = [
            (d.dataset.name, d.dataset.digest, d.dataset.source) for d in run.inputs.dataset_inputs
        ]
        shown[run.data.tags["raycib.key"]] = {
            "params": run.data.params, "metrics": run.data.metrics, "tags": tags,
            "curves": curves, "data": data, "status": run.info.status,
            "start": run.info.start_time,
            "files": [file.path for file in mlflow.list_artifacts(run.info.run_id)],
        }  # fmt: skip
    return shown


def test_a_sweep_is_one_run_with_one_inside_it_for_each_cell(tracked):
    folder, _summary = tracked
    mlflow = client(folder)
    runs = mlflow.search_runs([mlflow.get_experiment_by_name("raycib").experiment_id])
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs}
    [top] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(runs) == 17 and parents == {None, top.info.run_id}
    assert top.info.artifact_uri.startswith((folder / "mlartifacts").as_uri())
    assert view(folder)[""]["files"] == ["report.html", "summary.json"]
    assert "raycib.version.torch" in top.data.tags


def test_cells_can_be_compared_by_lambda_and_hrr(tracked):
    folder, summary = tracked
    shown = view(folder)
    for cell in summary["cells"]:
        run = shown[cell["key"]]
        assert float(run["params"]["strength"]) == cell["strength"] and "lam" not in run["params"]
        assert run["params"].get("strength_name") == (None if cell["method"] == "lora" else "lam")
        assert run["params"]["seed"] == str(cell["seed"])
        assert run["data"] == [("open", "ab" * 18, json.dumps({"sha256": "ab" * 32}))]
        if cell["failed"]:
            assert run["status"] == "FAILED" and "hrr" not in run["metrics"]
            assert "OutOfMemory" in run["tags"]["raycib.failed"]
        else:
            assert run["metrics"]["hrr"] == cell["scores"]["hrr"]["value"]
            assert run["metrics"]["hrr_low"] == cell["scores"]["hrr"]["low"]
            steps = [e["step"] for e in histories(summary)[cell["key"]]]
            assert [step for step, _ in run["curves"]["train/task"]] == steps


def test_the_link_of_the_ui_sorts_cells_by_strength_as_numbers(tmp_path):
    """2 before 10; as params they are texts."""
    summary = sweep(seeds=1, failed=False)
    assert track(typed(summary), {}, exhibits(tmp_path, summary))
    [link] = links(tmp_path / "mlflow.db", "http://here")
    asked = parse_qs(link.partition("?")[2])
    [by], [cells] = asked["orderByKey"], asked["searchFilter"]
    runs = client(tmp_path).search_runs(["1"], cells, order_by=[f"{by} ASC"])
    shown = [float(r.data.params["strength"]) for r in runs if "strength" in r.data.params]
    assert shown == sorted(shown) and {2.0, 10.0} <= set(shown)


def test_what_runs_are_compared_by_is_readable_and_the_rest_is_at_hand(tmp_path):
    summary = sweep(seeds=1)
    given = samples(summary, 12)
    folder = exhibits(tmp_path, summary)
    assert track(typed(summary), histories(summary), folder, samples=given)
    shown, mlflow = view(tmp_path), client(tmp_path)
    assert len(HEADLINE) + 1 <= 20
    for key in ("aligned", summary["cells"][0]["key"]):
        plain = {name for name in shown[key]["metrics"] if "/" not in name}
        assert "hrr" in plain and plain <= {*HEADLINE, "strength"}
    cell = summary["cells"][0]
    [run] = mlflow.search_runs(["1"], f"tags.`raycib.key` = '{cell['key']}'")
    assert (
        run.data.metrics["more/utility_facts"]
        == (cell["scores"]["utility_by_probe"]["facts"]["value"])
    )

    def artifact(name):
        return json.loads(Path(mlflow.download_artifacts(run.info.run_id, name)).read_text())

    whole = artifact("cell.json")
    assert whole["spec"] == cell.get("spec", {}) and whole["scores"] == cell["scores"]
    assert whole["adapter"]["place"] == f"stages/{cell['key']}"
    table = artifact("answers.json")
    assert [dict(zip(table["columns"], row, strict=True)) for row in table["data"]] == (
        json.loads(json.dumps(given[cell["key"]]))
    )


def test_cells_that_are_one_training_have_a_run_each(tmp_path):
    summary = sweep(seeds=1)
    summary["cells"][1]["key"] = summary["cells"][0]["key"]
    for _ in range(2):
        assert track(typed(summary), histories(summary), exhibits(tmp_path, summary))
        runs = client(tmp_path).search_runs(["1"])
        assert len(runs) == 7 and len({run.info.run_name for run in runs}) == 7


def test_runs_have_the_times_of_their_training_in_the_order_of_the_table(tmp_path):
    summary = sweep(seeds=1)
    keys = [cell["key"] for cell in summary["cells"]]
    times = dict.fromkeys(keys, (60_000, 90_000)) | {keys[-1]: (200_000, 210_000)}
    folder = exhibits(tmp_path, summary)
    assert track(typed(summary), histories(summary), folder, times=times)
    runs = client(tmp_path).search_runs(["1"])  # the last that began first, as MLflow lists them
    cells = [run for run in runs if run.data.tags["raycib.key"] in keys]
    assert [run.data.tags["raycib.key"] for run in cells] == [keys[-1], *keys[:-1]]
    assert {run.info.end_time for run in cells} == {90_000, 210_000}
    assert all(60_000 <= run.info.start_time < 61_000 for run in cells[1:])


def test_a_second_call_changes_nothing(tracked):
    folder, summary = tracked
    before = view(folder)
    assert track(typed(summary), histories(summary), exhibits(folder, summary))
    assert view(folder) == before


def test_a_view_made_anew_is_equal_field_by_field(tracked, tmp_path):
    folder, _summary = tracked
    stored = json.loads((folder / "lambda_grid" / "summary.json").read_text())
    assert track(typed(stored), histories(stored), exhibits(tmp_path, stored))
    assert view(tmp_path) == view(folder)


def one_by_one(monkeypatch):
    """As at a server: MLflow's client makes every run."""
    monkeypatch.setattr(tracker, "_runs", Server)


def test_many_runs_at_once_are_what_mlflows_client_makes(tracked, tmp_path, monkeypatch):
    folder, summary = tracked
    one_by_one(monkeypatch)
    assert track(typed(summary), histories(summary), exhibits(tmp_path, summary))
    assert view(tmp_path) == view(folder)


def test_a_table_that_is_no_more_is_no_artifact(tmp_path):
    summary = sweep(seeds=1)
    folder = exhibits(tmp_path, summary)
    (folder / "corrected.csv").write_text("method")
    assert track(typed(summary), {}, folder)
    assert "corrected.csv" in view(tmp_path)[""]["files"]
    (folder / "corrected.csv").unlink()
    assert track(typed(summary), {}, folder)
    files = view(tmp_path)[""]["files"]
    assert "corrected.csv" not in files and "report.html" in files


def cannot(*_: object) -> None:
    raise NotImplementedError


def test_a_table_that_a_place_cannot_remove_is_said_and_tried_again(tmp_path, monkeypatch, caplog):
    """Places of artifacts that MLflow cannot delete from raise this."""
    summary = sweep(seeds=1)
    folder = exhibits(tmp_path, summary)
    (folder / "corrected.csv").write_text("method")
    assert track(typed(summary), {}, folder)
    (folder / "corrected.csv").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(LocalArtifactRepository, "delete_artifacts", cannot)
        assert track(typed(summary), {}, folder)
    assert track(typed(summary), {}, folder)
    assert "MLflow keeps corrected.csv of an earlier run" in caplog.text
    assert "corrected.csv" not in view(tmp_path)[""]["files"]


@pytest.mark.parametrize("place", ["many", "one"])
def test_what_is_not_measured_any_more_is_no_number(place, tmp_path, monkeypatch):
    """A sweep that was shown with labels is shown again without: MLflow's own client can make a
    number nan, and a database has it no more."""
    if place == "one":
        one_by_one(monkeypatch)
    whole = sweep(seeds=1)
    cell = whole["cells"][0]
    told = {"labels": "l.csv", "labelled": 9, "specificity": rate(0.9, 60), "rows": []}
    cell["scores"]["hrr_rogan_gladen"] = rate(0.5, 260)
    assert track(typed(whole | {"correction": told}), {}, exhibits(tmp_path, whole))
    first = view(tmp_path)
    assert first[""]["metrics"]["judge_error/specificity"] == 0.9
    del cell["scores"]["hrr_rogan_gladen"], cell["scores"]["utility_by_probe"]["add"]
    assert track(typed(whole), {}, exhibits(tmp_path, whole))
    again = view(tmp_path)
    gone = [("", "judge_error/specificity"), ("", "judge_error/labels")]
    gone += [(cell["key"], name) for name in ("hrr_rogan_gladen", "more/utility_add")]
    for key, name in gone:
        assert name in first[key]["metrics"]
        assert math.isnan(again[key]["metrics"].get(name, math.nan))
        assert again[key]["metrics"].keys() >= {"count/stages"} or key


def test_a_curve_that_left_the_numbers_is_held_as_mlflow_holds_it(tmp_path, monkeypatch):
    summary, shown = sweep(seeds=1), []
    key = summary["cells"][0]["key"]
    curve = [{"step": 1, "task": math.nan}, {"step": 2, "task": math.inf}]
    for place in ("many", "one"):
        if place == "one":
            one_by_one(monkeypatch)
        (tmp_path / place).mkdir()
        assert track(typed(summary), {key: curve}, exhibits(tmp_path / place, summary))
        mlflow = client(tmp_path / place)
        [run] = mlflow.search_runs(["1"], f"tags.`raycib.key` = '{key}'")
        points = mlflow.get_metric_history(run.info.run_id, "train/task")
        shown.append(sorted((point.step, str(point.value)) for point in points))
    assert shown[0] == shown[1] and [step for step, _ in shown[0]] == [1, 2]


def test_more_cells_take_no_more_statements(tmp_path):
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    counts = []
    said: list[str] = []

    def listen(_connection, _cursor, statement, *_):
        said.append(statement)

    event.listen(Engine, "before_cursor_execute", listen)
    for seeds in (1, 2):
        said.clear()
        (tmp_path / str(seeds)).mkdir()
        summary = sweep(seeds=seeds)
        assert track(typed(summary), histories(summary), exhibits(tmp_path / str(seeds), summary))
        counts.append(len(said))
    event.remove(Engine, "before_cursor_execute", listen)
    assert counts[0] == counts[1], "they go in together"


def test_a_cell_mended_later_updates_its_run(tmp_path):
    broken, mended = sweep(failed=True), sweep(failed=False)
    assert track(typed(broken), histories(broken), exhibits(tmp_path, broken))
    mended["cells"][0]["scores"]["hrr"]["value"] = 0.5
    assert track(typed(mended), histories(mended), exhibits(tmp_path, mended))
    shown = view(tmp_path)
    assert len(shown) == 17
    first, last = shown[mended["cells"][0]["key"]], shown[mended["cells"][-1]["key"]]
    assert first["metrics"]["hrr"] == 0.5
    assert last["status"] == "FINISHED" and last["tags"]["raycib.failed"] == ""
    assert last["metrics"]["hrr"] == mended["cells"][-1]["scores"]["hrr"]["value"]
    assert len(last["curves"]["train/cib"]) == 20
    assert shown["aligned"]["metrics"]["hrr"] == 0


def test_a_long_curve_is_thinned_and_keeps_its_end(tmp_path):
    summary = sweep(seeds=1)
    assert track(typed(summary), histories(summary, logged=1_001), exhibits(tmp_path, summary))
    steps = [step for step, _ in view(tmp_path)[summary["cells"][1]["key"]]["curves"]["train/cib"]]
    assert len(steps) == 201 and steps[0] == 50 and steps[-1] == 10_010


def test_a_server_that_is_down_costs_a_warning_and_no_more(tmp_path, caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    summary, before = sweep(), dict(os.environ)
    started = time.monotonic()
    uri = f"http://user:secret@127.0.0.1:{port}"
    with caplog.at_level(logging.WARNING):
        assert track(typed(summary), {}, exhibits(tmp_path, summary), uri) is None
    assert time.monotonic() - started < 20
    assert dict(os.environ) == before
    [record] = caplog.records
    said = record.getMessage()
    assert "not in MLflow" in said and "\n" not in said and "secret" not in said


def test_a_server_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    summary = sweep()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        assert track(typed(summary), {}, exhibits(tmp_path, summary), uri) is None
    assert time.monotonic() - started < 20


def test_the_users_own_settings_are_honoured(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    summary = sweep(seeds=1)
    assert track(typed(summary), {}, exhibits(tmp_path, summary))
    assert len(view(elsewhere, "mine")) == 7 and not (tmp_path / "mlflow.db").exists()
