"""Who may do what, what needs a second person, and what follows from a signal. Pure."""

from control_plane.domain.governance.access import MAY, Action, Grant, Role, Scope, covers, may_pin, refusal

__all__ = ["MAY", "Action", "Grant", "Role", "Scope", "covers", "may_pin", "refusal"]
