"""What one writes by hand with care: FastAPI, a typed body, the booster's own in-place predict, no DataFrame."""

import os

import numpy as np
import xgboost
from fastapi import FastAPI
from pydantic import BaseModel, create_model

NAMES = [f"f{i:02d}" for i in range(20)]
Features = create_model("Features", **dict.fromkeys(NAMES, (float, ...)))


class Body(BaseModel):
    features: Features
    unit_id: str | None = None


class Answer(BaseModel):
    probability: float


booster = xgboost.Booster(model_file=os.environ["MODEL"])
booster.set_param({"nthread": 1})
app = FastAPI()


@app.post("/predict")
async def predict(body: Body) -> Answer:
    row = np.array([[getattr(body.features, name) for name in NAMES]], dtype=np.float32)
    return Answer(probability=float(booster.inplace_predict(row)[0]))
