"""A batch job's client: python -m benchmarks.serving.batch PORT PATH ROWS [HEADER...]. Ends on SIGTERM."""

import http.client
import json
import os
import sys
from typing import Final

from benchmarks.serving import fixed

_PIECE: Final = 65_536


def main(port: int, path: str, rows: int, headers: dict[str, str]) -> None:
    os.nice(10)
    table = fixed.requests().tolist()
    some = [dict(zip(fixed.FEATURES, table[i % len(table)], strict=True)) for i in range(rows)]
    body = json.dumps({"rows": some}).encode()
    # In pieces, as they come from elsewhere: one send of it all keeps a processor in the kernel for milliseconds.
    pieces = [body[at : at + _PIECE] for at in range(0, len(body), _PIECE)]
    sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while True:
        connection.request("POST", path, iter(pieces), sent)
        answer = connection.getresponse()
        size = 0
        while piece := answer.read(_PIECE):
            size += len(piece)
        if answer.status != 200:
            raise SystemExit(f"a batch was answered with {answer.status}")
        sys.stdout.write(f"{size}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    lines = dict(line.split(": ", 1) for line in sys.argv[4:])
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), lines)
