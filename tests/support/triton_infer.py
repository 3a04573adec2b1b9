"""Run by an interpreter that has tritonclient[http]: infer every row of each model, in JSON and in binary.

argv: a JSON document {"url", "key", "models": {name: {"columns": {feature: [datatype, [values]]}}}}; writes what came.
"""

import json
import sys

import numpy as np
import tritonclient.http as triton

_NUMPY = {"FP64": np.float64, "BOOL": np.bool_, "BYTES": np.object_}


def main(given):
    headers = {"Authorization": f"Bearer {given['key']}"}
    client = triton.InferenceServerClient(url=given["url"])
    found = {"live": client.is_server_live(), "ready": client.is_server_ready(), "server": client.get_server_metadata()}
    for model, asked in given["models"].items():
        answers = []
        for binary in (False, True):
            inputs = []
            for name, (datatype, values) in asked["columns"].items():
                tensor = triton.InferInput(name, [len(values), 1], datatype)
                tensor.set_data_from_numpy(np.array(values, dtype=_NUMPY[datatype]).reshape(-1, 1), binary_data=binary)
                inputs.append(tensor)
            outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in asked["outputs"]]
            for wanted in (outputs, None):
                result = client.infer(
                    model,
                    inputs,
                    outputs=wanted,
                    headers=dict(headers),  # the client adds its own to the dictionary it is given
                    request_id="r-1",
                    parameters={"unit_id": "customer-1"},
                    request_compression_algorithm="gzip" if binary and wanted else None,
                )
                told = {name: result.as_numpy(name).reshape(-1).tolist() for name in asked["outputs"]}
                told = {
                    name: [value.decode() if isinstance(value, bytes) else value for value in values]
                    for name, values in told.items()
                }
                answers.append({"outputs": told, "response": result.get_response()})
        try:
            client.infer(model, inputs[:1], headers=dict(headers))
        except triton.InferenceServerException as exc:
            refused = [str(exc.status()), exc.message()]
        found[model] = {
            "ready": client.is_model_ready(model),
            "metadata": client.get_model_metadata(model),
            "answers": answers,
            "refused": refused,
        }
    sys.stdout.write(json.dumps(found))


main(json.loads(sys.argv[1]))
