"""A batch job's client: python -m benchmarks.serving.batch PORT PATH ROWS [HEADER...]. Ends on SIGTERM."""

import http.client
import json
import os
import sys

from benchmarks.serving import fixed


def main(port: int, path: str, rows: int, headers: dict[str, str]) -> None:
    os.nice(10)
    table = fixed.requests().tolist()
    some = [dict(zip(fixed.FEATURES, table[i % len(table)], strict=True)) for i in range(rows)]
    body = json.dumps({"rows": some}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while True:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        size = 0
        while piece := answer.read(65_536):
            size += len(piece)
        if answer.status != 200:
            raise SystemExit(f"a batch was answered with {answer.status}")
        sys.stdout.write(f"{size}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    lines = dict(line.split(": ", 1) for line in sys.argv[4:])
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), lines)
