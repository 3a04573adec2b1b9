"""Work in subprocesses: training and simulation by a stand-in of the pipeline, drift by the real statistics."""

import json
import textwrap
from pathlib import Path

import pytest

from control_plane import errors
from control_plane.domain.rollouts import Verdict
from control_plane.sdk import DriftDetector, subprocesses, train_model
from tests.support import views
from tests.support.answering import Answering
from tests.support.cli import Run

REGISTERED = {
    "event": "registered",
    "detail": "churn version 2 (1.0.1): roc_auc 0.8412",
    "fraction": 1.0,
    "model": "churn",
    "version": "2",
    "semver": "1.0.1",
    "digest": "sha256:" + "ab" * 32,
    "run_id": "0" * 32,
    "metric": {"name": "roc_auc", "value": 0.8412, "holdout_rows": 6000, "low": 0.83, "high": 0.85},
    "metrics": {"brier": 0.1},
    "cost": {"model": 1200.0, "trivial": 5300.0, "currency": "EUR"},
}


class Pipeline:
    """A package `training` that does what a test says, found before the real one."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.file = folder / "training" / "__main__.py"
        self.file.parent.mkdir()
        (folder / "training" / "__init__.py").touch()
        patch.setenv("PYTHONPATH", str(folder))

    def does(self, program: str) -> None:
        self.file.write_text("import json, sys\n" + textwrap.dedent(program))

    def says(self, *lines: object) -> None:
        self.does("".join(f"print({json.dumps(json.dumps(line))}, flush=True)\n" for line in lines))


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    (tmp_path / "path").mkdir()
    return Pipeline(tmp_path / "path", monkeypatch)


class TestTraining:
    def test_a_training_tells_how_far_it_is_and_returns_its_version(self, pipeline: Pipeline) -> None:
        pipeline.says({"event": "fitting", "detail": "fitting", "fraction": 0.2}, REGISTERED)
        told: list[tuple[str, float]] = []
        trained = train_model("churn", told=lambda detail, fraction: told.append((detail, fraction)))
        assert (trained.version, trained.metric.value, trained.cost and trained.cost.trivial) == ("2", 0.8412, 5300.0)
        assert told == [("fitting", 0.2), ("churn version 2 (1.0.1): roc_auc 0.8412", 1.0)]

    def test_it_is_given_data_seed_and_registry(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLCP_MLFLOW_URL", "http://127.0.0.1:5999")
        pipeline.does(f"answer = {REGISTERED!r} | {{'run_id': ' '.join(sys.argv[1:])}}\nprint(json.dumps(answer))")
        trained = train_model("fraud", data="rows.csv", seed=3)
        assert trained.run_id == "train fraud --json --data rows.csv --mlflow-url http://127.0.0.1:5999 --seed 3"

    def test_refused_data_is_an_error_with_its_findings(self, pipeline: Pipeline) -> None:
        finding = {"column": "age", "check": "range", "message": "is below 0", "rows": 3, "examples": ["row 3: -4"]}
        refused = {
            "event": "failed",
            "type": "invalid-data",
            "detail": "refused",
            "fraction": 1.0,
            "findings": [finding],
        }
        pipeline.does(f"print(json.dumps({refused!r}))\nsys.exit(4)")
        with pytest.raises(errors.InvalidData) as caught:
            train_model("churn")
        assert caught.value.extra == {"findings": [finding]}

    def test_a_crash_shows_its_last_words(self, pipeline: Pipeline) -> None:
        pipeline.does("sys.stderr.write('x' * 200_000 + '\\nMemoryError: no more\\n')\nsys.exit(1)")
        with pytest.raises(errors.ControlPlaneError, match=r"ended with status 1\.\n[\s\S]*MemoryError: no more"):
            train_model("churn")

    def test_an_end_without_a_version_is_no_success(self, pipeline: Pipeline) -> None:
        pipeline.says({"event": "fitting", "detail": "fitting", "fraction": 0.2})
        with pytest.raises(errors.ControlPlaneError, match="without a version"):
            train_model("churn")

    def test_a_missing_extra_is_named_with_its_cure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(subprocesses, "find_spec", lambda name: None if name == "pandas" else object())
        with pytest.raises(errors.Unavailable, match=r"needs pandas; pip install 'mlcp\[training\]'"):
            train_model("churn")

    def test_leaving_early_ends_the_command(self, pipeline: Pipeline, tmp_path: Path) -> None:
        pipeline.does(
            f"""
            import pathlib, signal, time
            def leave(*_):
                pathlib.Path({str(tmp_path / "ended")!r}).touch()
                sys.exit(0)
            signal.signal(signal.SIGTERM, leave)
            print('{{"n": 1}}', flush=True)
            time.sleep(60)
            """
        )
        for event in subprocesses.events("training", "training"):
            assert event == {"n": 1}
            break
        assert (tmp_path / "ended").exists()


class TestCommands:
    def test_train_shows_metric_and_cost_and_waits_until_the_version_is_known(
        self, server: Answering, mlcp: Run, pipeline: Pipeline
    ) -> None:
        pipeline.says(REGISTERED)
        server.problem("GET", f"{views.API}/models/churn/versions/2", 404, "not-found")
        detail = views.version("2", config={}, evidence={}, gates=[])
        server.ok("GET", f"{views.API}/models/churn/versions/2", detail)
        shown = mlcp("train", "churn", "--seed", "7", "--wait").stdout
        assert "0.8412 (0.8300 to 0.8500) on 6000 rows" in shown
        assert "1200 EUR; the best constant answer costs 5300" in shown
        assert len(server.asked) == 2
        assert json.loads(mlcp("train", "churn", "--json").stdout)["version"] == "2"

    def test_train_lists_what_is_wrong_with_the_rows(self, mlcp: Run, pipeline: Pipeline) -> None:
        finding = {"column": "age", "check": "range", "message": "is below 0", "rows": 3, "examples": ["row 3: -4"]}
        refused = {"type": "invalid-data", "detail": "refused: age", "findings": [finding], "report": "r.json"}
        pipeline.does(f"print(json.dumps({refused!r}))\nsys.exit(4)")
        said = mlcp("train", "churn", exits=7).stderr.splitlines()
        assert [line.strip() for line in said] == [
            "Training data was refused.",
            "- age: is below 0 (3 rows): row 3: -4",
            "report r.json",
        ]

    def test_features_ends_as_the_pipeline_did(self, mlcp: Run, pipeline: Pipeline) -> None:
        pipeline.does("sys.exit({'4': 4, '3': 3, '0': 0}[sys.argv[-1]])")
        for status, exits in (("0", 0), ("3", 3), ("4", 7)):
            mlcp("features", "churn", "--data", status, exits=exits)


class TestSimulation:
    ROWS = [{"unit_id": f"c{n}", "features": {"n": n}, "label": n % 2 == 0, "event_time": None} for n in range(40)]

    def test_every_row_is_sent_once_and_its_outcome_told(
        self, server: Answering, mlcp: Run, pipeline: Pipeline
    ) -> None:
        pipeline.says(*self.ROWS)
        server.ok("POST", "/ml/churn/predict", views.prediction(prediction_id="p", model_version="3"))
        server.ok("POST", "/ml/churn/outcomes", {"accepted": 40}, 202)
        argv = ("simulate", "churn", "--rate", "400", "--duration", "0.1", "--outcomes", "--seed", "5", "--json")
        found = json.loads(mlcp(*argv).stdout)
        assert (found["sent"], found["answered"], found["failed"], found["outcomes"]) == (40, 40, 0, 40)
        assert (found["versions"], found["seed"]) == ({"3": 40}, 5)
        assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] <= found["latency_ms"]["max"]
        sent = [asked.body for asked in server.asked if asked.path.endswith("predict")]
        assert sorted(body["unit_id"] for body in sent) == sorted(str(row["unit_id"]) for row in self.ROWS)
        assert "label" not in sent[0]
        told = [outcome for asked in server.asked if asked.path.endswith("outcomes") for outcome in asked.body]
        assert sum(outcome["value"] for outcome in told) == 20

    def test_failures_are_counted_by_kind_and_fail_the_command(
        self, server: Answering, mlcp: Run, pipeline: Pipeline
    ) -> None:
        pipeline.says(*self.ROWS[:6])
        server.problem("POST", "/ml/churn/predict", 422, "invalid-input", reasons=["features.n: unknown"])
        server.ok("POST", "/ml/churn/predict", views.prediction())
        shown = mlcp("simulate", "churn", "--rate", "100", "--duration", "0.1", exits=1).stdout
        assert "failed, invalid-input  1" in shown
        assert "version 3" in shown

    def test_a_simulation_without_rows_sends_nothing(self, mlcp: Run, pipeline: Pipeline) -> None:
        pipeline.says()
        mlcp("simulate", "churn", exits=7)


class TestDrift:
    REFERENCE = [{"amount": float(n % 97), "country": "NL" if n % 3 else "DE", "note": None} for n in range(2_000)]

    def test_a_moved_column_is_found_and_an_unmoved_one_is_not(self) -> None:
        current = [{"amount": float(n % 97 + 60), "country": "NL" if n % 3 else "DE"} for n in range(1_000)]
        report = DriftDetector(self.REFERENCE).detect_drift(current)
        assert (report.verdict, report.drifted, report.left_out) == (Verdict.FAIL, ["amount"], [])
        (note,) = (feature for feature in report.features if feature.name == "note")
        assert (note.verdict, note.psi) == (Verdict.INCONCLUSIVE, None)
        assert (report.reference_rows, report.current_rows) == (2_000, 1_000)
        assert report.largest_psi is not None
        assert report.features[0].psi == report.largest_psi
        assert report.largest_psi > 0.5

    def test_too_little_to_judge_by_is_inconclusive_and_never_a_pass(self, tmp_path: Path) -> None:
        (tmp_path / "now.csv").write_text("amount,country\n3,NL\n4,DE\n")
        report = DriftDetector(self.REFERENCE).detect_drift(tmp_path / "now.csv")
        assert report.verdict is Verdict.INCONCLUSIVE
        assert report.drifted == []

    def test_what_cannot_be_used_is_said(self, tmp_path: Path) -> None:
        detector = DriftDetector(self.REFERENCE)
        with pytest.raises(errors.InvalidInput, match="none of the reference's columns"):
            detector.detect_drift([{"other": 1}])
        with pytest.raises(errors.InvalidInput, match="cannot be read"):
            detector.detect_drift(tmp_path / "none.parquet")
        with pytest.raises(errors.InvalidInput, match="psi must be > 0"):
            DriftDetector(self.REFERENCE, psi=-1).detect_drift(self.REFERENCE)
        with pytest.raises(errors.InvalidInput, match="--type"):
            DriftDetector(self.REFERENCE, types={"country": "colour"}).detect_drift(self.REFERENCE)

    def test_a_frame_a_file_and_a_list_of_rows_are_one(self, tmp_path: Path) -> None:
        import pandas as pd

        current = [{"amount": float(n % 90), "country": "NL"} for n in range(500)]
        frame = pd.DataFrame(current)
        frame.to_parquet(tmp_path / "now.parquet")
        detector = DriftDetector(self.REFERENCE)
        listed, framed, filed = (detector.detect_drift(rows) for rows in (current, frame, tmp_path / "now.parquet"))
        assert listed == framed == filed
