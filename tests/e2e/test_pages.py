"""What README and tutorial tell a newcomer to type, typed."""

import pytest

from tests.support import readme
from tests.support.stack import ROOT, Stack

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("page", "proof"),
    [("README.md", '"prediction_id"'), ("docs/tutorial/first-release.md", "each follows the one before it")],
)
def test_the_commands_of_the_page_run_as_written(stack: Stack, page: str, proof: str) -> None:
    addresses = {"127.0.0.1:8080": "ROUTER", "127.0.0.1:8000": "API", "127.0.0.1:5000": "MLFLOW"}
    printed = readme.run(
        readme.blocks(ROOT / page),
        cwd=stack.home.parent,  # where `var/` is, as for somebody in the checkout
        env=stack.env,
        replaced={shown: f"127.0.0.1:{stack.ports[name]}" for shown, name in addresses.items()},
    )
    assert proof in printed
