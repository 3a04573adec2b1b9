"""A real identity provider on loopback: discovery, published keys, tokens signed with RSA, EC or whatever is asked."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "mlcp"
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass
class Provider:
    """Keys by their id; `published`: the documents it answers, by path; `asked`: the paths it was asked for."""

    url: str = ""
    keys: dict[str, Private] = field(default_factory=dict[str, Private])
    asked: list[str] = field(default_factory=list[str])
    up: bool = True
    says_it_is: str | None = None

    def add(self, kid: str, kind: str = "RSA") -> None:
        made: Private
        made = rsa.generate_private_key(65_537, 2_048) if kind == "RSA" else ec.generate_private_key(ec.SECP256R1())
        self.keys[kid] = made

    def jwks(self) -> dict[str, Any]:
        shown: list[dict[str, Any]] = []
        for kid, key in self.keys.items():
            algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
            shown.append({**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})  # type: ignore[arg-type]
        return {"keys": shown}

    def token(self, kid: str = "one", *, algorithm: str | None = None, without: str = "", **claims: Any) -> str:
        key, now = self.keys[kid], int(time.time())
        said: dict[str, Any] = {"iss": self.url, "aud": AUDIENCE, "sub": "u-1", "email": "ann@bank.example"}
        said |= {"groups": ["releases"], "iat": now, "exp": now + 300, **claims}
        said.pop(without, None)
        usual = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(said, key, algorithm or usual, headers={"kid": kid})

    def documents(self) -> dict[str, Any]:
        discovery = {"issuer": self.says_it_is or self.url, "jwks_uri": f"{self.url}/keys"}
        return {"/.well-known/openid-configuration": discovery, "/keys": self.jwks()}


@contextmanager
def provider() -> Iterator[Provider]:
    made = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            found = made.documents().get(self.path) if made.up else None
            body = json.dumps(found).encode()
            self.send_response(200 if found is not None else 503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    made.add("one")
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
