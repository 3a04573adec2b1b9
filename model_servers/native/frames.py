"""DataFrames for those who have them: what a plain MLflow user's `predict` takes and returns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_servers.native.manifest import Manifest
from model_servers.native.model import Model


def columns(frame: Any, manifest: Manifest) -> list[NDArray[Any]]:
    """A pandas DataFrame's columns as `Model.predict_columns` takes them; nulls of any kind are null.

    Raises ValueError naming every feature the frame lacks; further columns are ignored.
    """
    if missing := [feature.name for feature in manifest.features if feature.name not in frame]:
        raise ValueError(f"missing features: {', '.join(missing)}")
    made: list[NDArray[Any]] = []
    for feature in manifest.features:
        values: list[Any] = frame[feature.name].astype(object).tolist()
        null: list[bool] = frame[feature.name].isna().tolist()
        if feature.type in {"category", "text"}:
            words = [None if absent else str(value) for value, absent in zip(values, null, strict=True)]
            made.append(np.array(words, dtype=object))
        else:
            numbers = [np.nan if absent else float(value) for value, absent in zip(values, null, strict=True)]
            made.append(np.array(numbers, dtype=np.float64))
    return made


def answers(model: Model, frame: Any) -> dict[str, Any]:
    """Columns of the answer: probability and decision; label and probability; or value."""
    prediction = model.predict_columns(columns(frame, model.manifest))
    match model.manifest.problem:
        case "binary":
            found: dict[str, Any] = {"probability": prediction}
            if model.manifest.decision is not None and model.manifest.threshold is not None:
                no, yes = model.manifest.decision
                found["decision"] = np.where(prediction >= model.manifest.threshold, yes, no)
            return found
        case "multiclass":
            best = prediction.argmax(axis=1)
            return {"label": np.array(model.manifest.classes)[best], "probability": prediction.max(axis=1)}
        case "regression":
            return {"value": prediction}
