"""What MLflow runs to load one of our versions: the native runtime, whose code lies beside this file in the artifact.

Logged as code, not pickled: it loads under any Python that has numpy, pandas and xgboost.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import set_model

from model_servers import native
from model_servers.native import frames


class NativeModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # mlflow is untyped here
    def load_context(self, context: Any) -> None:
        self._model = native.load(Path(context.artifacts["native"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        return pd.DataFrame(frames.answers(self._model, model_input))


set_model(NativeModel())
