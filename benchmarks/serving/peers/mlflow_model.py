"""Save the booster as an MLflow model, for `mlflow models serve`: mlflow_model.py BOOSTER FOLDER."""

import sys

import mlflow
import xgboost

mlflow.xgboost.save_model(xgboost.Booster(model_file=sys.argv[1]), sys.argv[2])
