"""Ray Serve: an ingress deployment behind its HTTP proxy, with or without dynamic batching. Runs until SIGTERM."""

import json
import os
import signal
import sys
import threading

import numpy as np
import ray
import xgboost
from ray import serve
from starlette.requests import Request

PORT, REPLICAS = int(sys.argv[1]), int(os.environ["WORKERS"])
BATCHING = os.environ["BATCHING"] == "1"


@serve.deployment(num_replicas=REPLICAS, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.5})
class Fixed:
    def __init__(self, model: str) -> None:
        self.booster = xgboost.Booster(model_file=model)
        self.booster.set_param({"nthread": 1})

    def score(self, rows: list[list[float]]) -> list[float]:
        return self.booster.inplace_predict(np.array(rows, dtype=np.float32)).tolist()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.002)
    async def together(self, rows: list[list[float]]) -> list[float]:
        return self.score(rows)

    async def __call__(self, request: Request) -> dict[str, float]:
        row = list(json.loads(await request.body())["features"].values())
        return {"probability": await self.together(row) if BATCHING else self.score([row])[0]}


if __name__ == "__main__":
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", logging_level="ERROR")
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config={"enable_access_log": False})
    serve.run(Fixed.bind(os.environ["MODEL"]), name="fixed", route_prefix="/predict")
    stop.wait()
    serve.shutdown()
    ray.shutdown()
