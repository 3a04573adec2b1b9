"""A mail server on loopback: SMTP with STARTTLS and a certificate of its own, which may refuse for a while."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class MailServer:
    """`refuse`: how many messages are answered 451 first. `plain`: commands that came before TLS."""

    port: int
    certificate: Path
    refuse: int = 0
    letters: list[EmailMessage] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)


def certified(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 signed by itself, and the context of a server that has it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = made.add_extension(here, critical=False).sign(key, hashes.SHA256())
    certificate, private = folder / "mail.pem", folder / "mail.key"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return certificate, context


@asynccontextmanager
async def mail_server(folder: Path) -> AsyncIterator[MailServer]:
    certificate, context = certified(folder)
    seen = MailServer(0, certificate)

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())

        say("220 here")
        safe = False
        while line := (await reader.readline()).decode().strip():
            word = line.split(" ")[0].upper()
            if not safe:
                seen.plain.append(word)
            match word:
                case "EHLO":
                    say("250-here\r\n250-AUTH PLAIN\r\n250 8BITMIME" if safe else "250-here\r\n250 STARTTLS")
                case "STARTTLS":
                    say("220 go ahead")
                    await writer.drain()
                    await writer.start_tls(context)
                    safe = True
                case "AUTH":
                    seen.logins.append(line)
                    say("235 welcome")
                case "DATA":
                    say("354 go on")
                    letter = await reader.readuntil(b"\r\n.\r\n")
                    if seen.refuse:
                        seen.refuse -= 1
                        say("451 not now")
                        continue
                    seen.letters.append(message_from_bytes(letter[:-5], policy=policy.default))  # type: ignore[arg-type]
                    say("250 taken")
                case "QUIT":
                    say("221 bye")
                    break
                case _:
                    say("250 ok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(session, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    async with server:
        yield seen
