"""Who is told: the receivers of the settings as routes for the domain and as addresses for `adapters.notify`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.adapters import notify
from control_plane.adapters.notify import Mailbox, Message
from control_plane.domain.governance.policy import Severity
from control_plane.domain.notices import Route
from control_plane.errors import Unavailable
from control_plane.settings import Receiver, Receivers

_PORTS = {"starttls": 587, "tls": 465, "none": 25}


@dataclass(frozen=True, slots=True)
class Known:
    """All receivers, by name. Their secrets are read when they are used, so that a file may be replaced meanwhile."""

    by_name: Mapping[str, Receiver] = field(default_factory=dict[str, Receiver])

    @property
    def routes(self) -> list[Route]:
        return [Route(r.name, Severity(r.severity), r.models, r.events) for r in self.by_name.values()]

    async def send(self, name: str, message: Message) -> None:
        """Unavailable: not now; NotFound is none, since a receiver may be configured again."""
        receiver = self.by_name.get(name)
        if receiver is None:
            raise Unavailable(f"No receiver is named {name}: MLCP_RECEIVERS.")
        try:
            address, secret = receiver.address(), receiver.shared_secret()
        except OSError as exc:
            raise Unavailable(f"A file of receiver {name} cannot be read: {exc.strerror}.") from None
        match receiver.kind:
            case "slack":
                await notify.slack(address, message)
            case "webhook":
                await notify.webhook(address, secret, message)
            case "email":
                await notify.mail(_mailbox(receiver, address, secret), message)


def known(settings: Receivers) -> Known:
    """Those of MLCP_RECEIVERS, and one for each classic name that is set."""
    found = list(settings.receivers)
    if settings.slack_webhook_url is not None:
        found.append(Receiver(name="slack", kind="slack", url=settings.slack_webhook_url))
    if settings.email_smtp_server is not None and settings.email_to:
        found.append(
            Receiver(
                name="email",
                kind="email",
                url=settings.email_smtp_server,
                to=tuple(part.strip() for part in settings.email_to.split(",")),
                sender=settings.email_from,
                user=settings.email_user,
                secret=settings.email_password,
                tls=settings.email_tls,
            )
        )
    return Known({receiver.name: receiver for receiver in found})


def _mailbox(receiver: Receiver, address: str, secret: str | None) -> Mailbox:
    host, _, port = address.rpartition("://")[2].strip("/").partition(":")
    return Mailbox(
        host,
        int(port or _PORTS[receiver.tls]),
        receiver.tls,
        receiver.sender,
        receiver.to,
        receiver.user,
        secret,
        None if receiver.ca_file is None else str(receiver.ca_file),
    )
