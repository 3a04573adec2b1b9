"""Other flavours logged by plain MLflow: XGBoost, and a class of its own with a package nobody here has."""

import subprocess
import sys
import textwrap

import httpx
import pytest

from tests.support.stack import ROOT, Stack, eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1_500)]

LOG = textwrap.dedent(
    """
    import os
    import mlflow, numpy as np, pandas as pd, xgboost
    from mlflow.models import infer_signature
    mlflow.set_tracking_uri(os.environ["MLCP_MLFLOW_URL"])
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"income": rng.normal(3000.0, 500.0, 400), "age": rng.normal(45.0, 12.0, 400)})
    y = (X["income"] + 20 * X["age"] > 4000).astype("int64")

    class Words(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            import humanize  # only in the environment the model asks for
            return [humanize.intcomma(int(value)) for value in model_input["income"]]

    with mlflow.start_run():
        trees = xgboost.XGBClassifier(n_estimators=5).fit(X, y)
        mlflow.xgboost.log_model(trees, name="model", signature=infer_signature(X, trees.predict(X)),
                                 registered_model_name="plain-trees", model_format="json")
    with mlflow.start_run():
        mlflow.pyfunc.log_model(name="model", python_model=Words(), registered_model_name="plain-words",
                                signature=infer_signature(X[["income"]], ["4,000"]),
                                pip_requirements=[f"mlflow=={mlflow.__version__}", "pandas", "humanize==4.12.3"])
    print(int(trees.predict(X.head(1))[0]), X.iloc[0]["income"], X.iloc[0]["age"])
    """
)


def test_xgboost_and_a_class_with_its_own_requirements_serve_in_staging(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOG],
        env=stack.env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    label, income, age = done.stdout.strip().splitlines()[-1].split()
    for model, features, output in (
        ("plain-trees", {"income": float(income), "age": float(age)}, int(label)),
        ("plain-words", {"income": 1_234_567.0}, "1,234,567"),
    ):
        eventually(lambda model=model: stack.json("versions", model), f"{model} visible")
        stack.mlcp("promote", model, "1", "--to", "staging", "--reason", "try it")
        with stack.data_plane("admin") as client:
            body = {"features": features, "model_version": "1"}

            def answer(model: str = model, body: dict[str, object] = body) -> httpx.Response:
                return client.post(f"/ml/{model}/predict", json=body).raise_for_status()

            assert eventually(answer, f"an answer of {model}", within=600, every=2).json()["output"]["value"] == output
