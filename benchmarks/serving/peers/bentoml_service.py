"""BentoML with its adaptive batching: one row a request comes in, the service sees many."""

import os

import bentoml
import numpy as np
import xgboost

BATCHING = os.environ["BATCHING"] == "1"
LATENCY_MS = int(os.environ.get("LATENCY_MS", "1000"))


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 30, "max_concurrency": 1024})
class Fixed:
    def __init__(self) -> None:
        self.booster = xgboost.Booster(model_file=os.environ["MODEL"])
        self.booster.set_param({"nthread": 1})

    @bentoml.api(batchable=BATCHING, max_batch_size=64, max_latency_ms=LATENCY_MS)
    async def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.booster.inplace_predict(np.asarray(rows, dtype=np.float32))
