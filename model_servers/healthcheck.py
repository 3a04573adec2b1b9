"""`python -m model_servers.healthcheck URL`: exit code 0 if it answers 200, for images without curl."""

import sys
from urllib.request import Request, urlopen


def main() -> int:
    request = Request(sys.argv[1], headers={"User-Agent": "mlcp-healthcheck"})  # noqa: S310  (an address of the image's own)
    try:
        with urlopen(request, timeout=4) as answer:  # noqa: S310
            return 0 if answer.status == 200 else 1
    except OSError as exc:
        sys.stderr.write(f"{sys.argv[1]}: {exc}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
