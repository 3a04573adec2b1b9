"""The frame-free runtime of our own artifacts: numpy and a tree library's C interface, nothing else.

    model = native.load(folder)
    model.predict([[52.0, None, "month-to-month"]])

Imports neither pandas nor scikit-learn nor the control plane; the same code travels inside every MLflow model, so
a plain `mlflow.pyfunc.load_model` answers what our servers answer.
"""

from model_servers.native.manifest import BadArtifact, Feature, Manifest
from model_servers.native.model import Contributions, Model, load

__all__ = ["BadArtifact", "Contributions", "Feature", "Manifest", "Model", "load"]
