"""Server of churn. Generated from model.yaml by `mlcp generate churn`: do not edit.

Run: python -m model_servers.churn.server --artifact DIR --version 3 --digest sha256:...
"""

# fmt: off

import sys
from pathlib import Path

from model_servers.runtime import standalone


def main() -> int:
    return standalone.main(Path(__file__).with_name("model.yaml"))


if __name__ == "__main__":
    sys.exit(main())
