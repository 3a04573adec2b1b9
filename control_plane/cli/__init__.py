"""`mlcp`: the control plane from a terminal, on top of the SDK.

Each module registers its commands; nothing heavy is imported before a command runs.
"""

import typer

from control_plane.cli import (
    ab_tests,
    apply,
    approvals,
    audit,
    backups,
    drift,
    jobs,
    keys,
    local,
    logs,
    notifications,
    policies,
    predict,
    registry,
    releases,
    replay,
    reports,
    router,
    simulate,
    stack,
    why,
)
from control_plane.cli.console import Commands


def build() -> typer.Typer:
    """The whole application."""
    app = typer.Typer(
        cls=Commands,
        name="mlcp",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Release control plane for machine-learning models.",
    )
    modules = (
        stack,
        backups,
        local,
        registry,
        releases,
        ab_tests,
        replay,
        apply,
        router,
        predict,
        simulate,
        drift,
        why,
        approvals,
        policies,
        audit,
        reports,
        notifications,
        keys,
        jobs,
        logs,
    )
    for module in modules:
        module.register(app)
    return app


def main() -> None:
    build()()
