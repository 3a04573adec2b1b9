"""Slack, mail and webhooks, in this one module: a notice to one receiver, once. Nothing it raises holds a secret."""

import asyncio
import base64
import hmac
import json
import smtplib
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from hashlib import sha256

import httpx

from control_plane.errors import Unavailable

_TIMEOUT_S = 15.0
_COLOURS = {"info": "#2e7d32", "warning": "#b26a00", "critical": "#b3261e"}


@dataclass(frozen=True, slots=True)
class Message:
    """`id` stays the same over all attempts, so that a receiver can tell what it has. `link` None: no address known."""

    id: str
    event: str
    severity: str
    model: str | None
    title: str
    lines: Sequence[str]
    link: str | None
    at: datetime
    files: Sequence[tuple[str, bytes]] = ()  # name and content; mail alone carries them


@dataclass(frozen=True, slots=True)
class Mailbox:
    """`tls`: starttls, tls (from the first byte), or none. `ca_file`: who signed the server's certificate."""

    host: str
    port: int
    tls: str
    sender: str
    to: Sequence[str]
    user: str | None = None
    password: str | None = None
    ca_file: str | None = None


async def slack(url: str, message: Message) -> None:
    """By an incoming webhook. Unavailable: it did not take it."""
    text = "\n".join([*message.lines, *([message.link] if message.link else [])])
    shown = {"color": _COLOURS[message.severity], "text": _quoted(text), "fallback": _quoted(message.title)}
    title = f"[{message.severity}] {message.title}"
    await _post(url, json.dumps({"text": _quoted(title), "attachments": [shown]}).encode(), {})


async def webhook(url: str, secret: str | None, message: Message) -> None:
    """JSON, signed as our own webhooks are: "v1," + base64 of HMAC-SHA256 over timestamp, a dot and the body.

    Unavailable: it was not answered with 2xx.
    """
    names = ("id", "event", "severity", "model", "title", "link")
    body = json.dumps({n: getattr(message, n) for n in names} | _rest(message)).encode()
    headers = {"X-Mlcp-Delivery": message.id, "X-Mlcp-Timestamp": str(int(time.time()))}
    if secret is not None:
        signed = f"{headers['X-Mlcp-Timestamp']}.".encode() + body
        mac = hmac.new(secret.encode(), signed, sha256).digest()
        headers["X-Mlcp-Signature"] = f"v1,{base64.b64encode(mac).decode()}"
    await _post(url, body, headers)


async def mail(box: Mailbox, message: Message) -> None:
    """By SMTP, in a thread. Unavailable: the server did not take it for every recipient."""
    try:
        async with asyncio.timeout(4 * _TIMEOUT_S):
            await asyncio.to_thread(_send, box, _letter(box, message))
    except smtplib.SMTPResponseException as exc:
        raise Unavailable(f"The mail server answered {exc.smtp_code}.") from None
    except smtplib.SMTPRecipientsRefused as exc:
        codes = sorted({str(code) for code, _ in exc.recipients.values()})
        raise Unavailable(f"The mail server refused recipients: {', '.join(codes)}.") from None
    except (smtplib.SMTPException, OSError, TimeoutError) as exc:
        raise Unavailable(f"The mail server cannot be used: {type(exc).__name__}.") from None


def _rest(message: Message) -> dict[str, object]:
    return {"text": list(message.lines), "at": message.at.isoformat()}


def _quoted(text: str) -> str:
    """Slack's three special characters: text of people must not become a mention or a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


async def _post(url: str, body: bytes, headers: dict[str, str]) -> None:
    told = {"Content-Type": "application/json", "User-Agent": "mlcp"} | headers
    try:
        async with asyncio.timeout(_TIMEOUT_S), httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            answer = await client.post(url, content=body, headers=told)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as exc:  # its words may hold the URL
        raise Unavailable(f"The receiver does not answer: {type(exc).__name__}.") from None
    if not answer.is_success:
        raise Unavailable(f"The receiver answered {answer.status_code}.")


def _letter(box: Mailbox, message: Message) -> EmailMessage:
    letter = EmailMessage()
    letter["From"], letter["To"] = box.sender, ", ".join(box.to)
    letter["Subject"] = " ".join(f"[{message.severity}] {message.title}".split())
    letter["Date"] = format_datetime(message.at)
    letter["Message-ID"] = f"<{message.id}@mlcp>"  # the same over all attempts
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content("\n\n".join([*message.lines, *([message.link] if message.link else [])]) or message.title)
    for name, content in message.files:
        kind = "pdf" if name.endswith(".pdf") else "json"
        letter.add_attachment(content, maintype="application", subtype=kind, filename=name)
    return letter


def _send(box: Mailbox, letter: EmailMessage) -> None:
    context = ssl.create_default_context(cafile=box.ca_file)
    server: smtplib.SMTP
    if box.tls == "tls":
        server = smtplib.SMTP_SSL(box.host, box.port, timeout=_TIMEOUT_S, context=context)
    else:
        server = smtplib.SMTP(box.host, box.port, timeout=_TIMEOUT_S)
    with server:
        if box.tls == "starttls":
            server.starttls(context=context)
        if box.user is not None:
            server.login(box.user, box.password or "")
        server.send_message(letter)
