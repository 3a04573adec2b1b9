"""All configuration: one frozen class per process, read once at its start, handed on as an argument.

Precedence: argument > environment > files in MLCP_SECRETS_DIR, each named like its variable in small letters
(`mlcp_postgres_dsn`) > `$MLCP_HOME/mlcp.toml` > default. No secret has a default; the embedded stack makes its own at
first start. The classic names of MLOps set-ups (MLFLOW_TRACKING_URI, REDIS_HOST, ...) are accepted
as aliases of ours, which win.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from control_plane.domain.governance.sign_in import Membership

SigningAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
AbsolutePath = Annotated[Path, BeforeValidator(lambda value: Path(str(value)).expanduser().absolute())]


def _redis_url(value: object) -> object:
    text = str(value)
    return text if "://" in text else f"redis://{text}" if ":" in text else f"redis://{text}:6379"


RedisUrl = Annotated[str, BeforeValidator(_redis_url)]


class _Process(BaseSettings):
    """What every process reads."""

    model_config = SettingsConfigDict(env_prefix="MLCP_", frozen=True, populate_by_name=True, extra="ignore")

    home: AbsolutePath = Path("var")  # state, keys and logs of this installation; made absolute
    log_level: str = "INFO"  # DEBUG, INFO, WARNING or ERROR

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = Path(os.environ.get("MLCP_HOME", "var")) / "mlcp.toml"
        sources = [init_settings, env_settings]
        if folder := os.environ.get("MLCP_SECRETS_DIR"):
            sources.append(SecretsSettingsSource(settings_cls, secrets_dir=folder))
        return (*sources, TomlConfigSettingsSource(settings_cls, file))

    @property
    def run(self) -> Path:
        return self.home / "run"


def _alias(name: str, *classic: str) -> AliasChoices:
    return AliasChoices(f"MLCP_{name.upper()}", name, *classic)


class _Scraped(_Process):
    """Processes without a port of their own for scrapes; the router answers for all of its host."""

    metrics_host: str = "127.0.0.1"  # address GET /metrics is answered on, if there is a port
    metrics_port: int | None = None  # port of it, for a process whose host has no router (containers); None: none


class _Store(_Process):
    postgres_dsn: SecretStr  # postgresql+asyncpg://...; may hold a password
    transaction_pooler: bool = False  # True behind pgbouncer in transaction mode: statement caches off


class _Bus(_Process):
    redis_url: RedisUrl = Field(validation_alias=_alias("redis_url", "REDIS_HOST"))  # may be unix:///path


class _Registry(_Process):
    mlflow_url: str = Field(  # the registry's address
        "http://127.0.0.1:5000", validation_alias=_alias("mlflow_url", "MLFLOW_TRACKING_URI")
    )


class _Gates(_Process):
    auto_promote_threshold: float = Field(  # the metric's minimum where model.yaml names none
        0.85, validation_alias=_alias("auto_promote_threshold", "AUTO_PROMOTE_THRESHOLD")
    )
    performance_degradation_threshold: float = Field(  # how much worse than Production, where model.yaml says nothing
        0.05, validation_alias=_alias("performance_degradation_threshold", "PERFORMANCE_DEGRADATION_THRESHOLD")
    )


class Releases(_Gates):
    """What every process that moves versions has to know alike."""

    warm_s: float = 600.0  # how long a version that lost its traffic stays warm beyond the bake
    prometheus_url: str | None = None  # where analyses ask their PromQL; None: plans with a query are refused
    policy: Literal["dev", "prod"] = "dev"  # what needs an approval, until a policy of your own is applied
    hold_out_percent: float = Field(0.0, ge=0, le=50)  # a fixed slice of units that never gets a candidate of any model


class _Drift(_Process):
    drift_threshold: float = Field(  # practical threshold (PSI) where model.yaml names none
        0.1, validation_alias=_alias("drift_threshold", "DRIFT_THRESHOLD")
    )


class _Archive(_Process):
    archive_url: str | None = None  # file:///folder or s3://bucket/prefix?...; None: $MLCP_HOME/archive


class _Cluster(_Process):
    """Beside KUBECONFIG, which every client of Kubernetes reads; without it a pod's service account is used."""

    kubernetes_namespace: str | None = None  # of model servers and training jobs; None: that of the account


class SignIn(_Process):
    """Tokens of an identity provider (OpenID Connect), beside our own keys."""

    oidc_issuer: str | None = None  # exactly as in its tokens' `iss`; None: keys alone
    oidc_audience: str | None = None  # what of their `aud` is us; needed with an issuer
    oidc_jwks_url: str | None = None  # where its keys are; None: its discovery document says
    oidc_algorithms: tuple[SigningAlgorithm, ...] = ("RS256", "ES256")  # others are refused
    oidc_person_claim: str = "email"  # names the person, as in keys made for them
    oidc_groups_claim: str = "groups"  # list of names, or a path such as realm_access.roles
    oidc_roles: dict[str, Membership] = {}  # group -> role, models, automated; the first that fits counts
    oidc_leeway_s: float = Field(30.0, ge=0, le=300)  # what its clock and ours may differ
    failed_sign_ins_per_minute: int = Field(60, ge=1)  # of one address; beyond it only what was right before is taken

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.oidc_issuer is None:
            return self
        if not self.oidc_audience or not self.oidc_roles:
            raise ValueError("oidc_issuer needs oidc_audience and oidc_roles")
        for url in filter(None, (self.oidc_issuer, self.oidc_jwks_url)):
            parts = urlsplit(url)
            if parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
                raise ValueError(f"{url}: keys are fetched over https, or on this host alone")
        return self


class ApiSettings(_Store, _Scraped, _Registry, Releases, _Drift, _Archive, SignIn):
    """The admin API. It needs Postgres to start and MLflow for artifacts' details only."""

    api_host: str = "127.0.0.1"  # address the API listens on
    api_port: int = 8000  # port the API listens on
    router_token: SecretStr | None = None  # what routers show to fetch snapshots; None: that route is closed
    router_live_s: float = 5.0  # a router not heard of for longer is not waited for
    max_body_bytes: int = 1_048_576  # of one request; larger ones are refused
    mlflow_webhook_secret: SecretStr | None = None  # signs MLflow's webhooks; None: they need a key like anyone
    alert_webhook_secret: SecretStr | None = None  # signs alerts, or is their key; None: they need one like anyone
    audit_public_key_file: AbsolutePath | None = None  # PEM, several keys allowed; None: keys/audit-signing.pub


class GateSettings(_Store, _Registry, SignIn):
    """The authenticating way to MLflow."""

    gate_host: str = "127.0.0.1"  # address the gate to MLflow listens on
    gate_port: int = 5001  # port the gate to MLflow listens on


class InitSettings(ApiSettings):
    """What prepares the database: the one process that is told about the role which owns the audit."""

    postgres_owner_dsn: SecretStr | None = None  # of the role that migrates; None: the processes' own does


class ReconcilerSettings(_Store, _Scraped, _Bus, _Registry, Releases, _Archive, _Cluster):
    """The reconciler: MLflow, deployments and snapshots follow Postgres."""

    deployer: Literal["local", "kubernetes"] = "local"  # what runs the model servers
    registry_poll_s: float = 2.0  # how often MLflow is looked at
    mlflow_webhook_url: str | None = None  # our /webhooks/mlflow as MLflow reaches it, https; None: polling alone
    mlflow_webhook_secret: SecretStr | None = None  # given to MLflow, which signs its calls with it
    audit_signing_key: SecretStr | None = None  # Ed25519 in PEM, signs the audit; None: the file does
    audit_signing_key_file: AbsolutePath | None = None  # None: keys/audit-signing.key, made at first start
    lease_s: float = 5.0  # a leader not heard of for longer is replaced
    staging_idle_s: float = Field(7 * 86_400.0, gt=0)  # a version in Staging that nobody asks for so long is stopped
    artifact_cache_s: float = Field(7 * 86_400.0, ge=0)  # how long an artifact that no version needs stays on disk
    router_live_s: float = 5.0


class ArchiverSettings(_Store, _Archive):
    """Brings the prediction log into the archive, and drops what Postgres has kept long enough."""

    retention_days: int = Field(35, ge=1)  # days of the log in Postgres; older ones are in the archive alone
    outcomes_days: Annotated[int, Field(ge=1)] | None = None  # days of outcomes in Postgres; None: as of the log
    exposures_days: int = Field(35, ge=1)  # how long after a rollout's end it is kept who was in which arm


class ReplayerSettings(_Store, _Archive, _Registry):
    """Runs a candidate over logged traffic; started by the worker."""

    replay_processes: int = Field(2, ge=2, le=64)  # that score at the same time, one in two for either version


Tls = Literal["starttls", "tls", "none"]
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Receiver(BaseModel):
    """Who is told, and of what: `severity` and above, of models and events (report.made, ...) that match a pattern."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")
    kind: Literal["slack", "webhook", "email"]
    severity: Literal["info", "warning", "critical"] = "info"
    models: tuple[str, ...] = ("*",)
    events: tuple[str, ...] = ("*",)
    url: SecretStr | None = None  # of a webhook; of email host or host:port
    url_file: AbsolutePath | None = None
    secret: SecretStr | None = None  # signs a webhook; of email the password
    secret_file: AbsolutePath | None = None
    to: tuple[str, ...] = ()
    sender: str = "mlcp@localhost"
    user: str | None = None
    tls: Tls = "starttls"
    ca_file: AbsolutePath | None = None  # PEM, of a mail server with a certificate of your own

    @model_validator(mode="after")
    def _whole(self) -> "Receiver":
        if (self.url is None) == (self.url_file is None):
            raise ValueError(f"receiver {self.name}: exactly one of url and url_file")
        if self.kind == "email" and not self.to:
            raise ValueError(f"receiver {self.name}: to, the addresses")
        host = (self.url.get_secret_value() if self.url else "").partition(":")[0]
        if self.kind == "email" and self.tls == "none" and host not in _LOOPBACK:
            raise ValueError(f"receiver {self.name}: tls none is for a mail server on this host alone")
        return self

    def address(self) -> str:
        """Read when it is used. OSError: the file cannot be."""
        return _secret(self.url, self.url_file) or ""

    def shared_secret(self) -> str | None:
        return _secret(self.secret, self.secret_file)


def _secret(value: SecretStr | None, file: Path | None) -> str | None:
    return value.get_secret_value() if value else file.read_text().strip() if file else None


class Receivers(_Process):
    """Whom the worker tells."""

    receivers: tuple[Receiver, ...] = ()  # as JSON, or [[receivers]] in mlcp.toml: docs/howto/notify.md
    public_url: str | None = None  # how people reach the API, for links in messages; None: messages have no link
    slack_webhook_url: SecretStr | None = Field(  # a receiver named slack that is told everything
        None, validation_alias=_alias("slack_webhook_url", "SLACK_WEBHOOK_URL")
    )
    email_smtp_server: SecretStr | None = Field(  # host or host:port; with email_to a receiver named email
        None, validation_alias=_alias("email_smtp_server", "EMAIL_SMTP_SERVER")
    )
    email_to: str | None = None  # addresses, separated by commas
    email_from: str = "mlcp@localhost"  # the sender
    email_user: str | None = None  # at the mail server
    email_password: SecretStr | None = None  # at the mail server
    email_tls: Tls = "starttls"  # tls: from the first byte; none: on this host alone


class WorkerSettings(_Store, _Scraped, _Registry, Releases, _Drift, _Cluster, _Archive, Receivers):
    """The job queue's process: training, replay, reports, notifications, archiving, a look at drift every minute."""

    trainer: Literal["local", "kubernetes"] = "local"  # where training runs: a child process, or a Job of the cluster
    worker_concurrency: int = 1  # jobs carried out at the same time
    job_timeout_s: float = 6 * 3_600.0  # a job that runs longer is stopped and fails
    drift_early: bool = False  # judge a version's first hours too, taking every hour and day for alike


class ReporterSettings(_Store, _Gates, _Archive):
    """Makes one report; a process of the worker's."""

    summary_url: str | None = None  # OpenAI-compatible endpoint (.../v1) that writes summaries; None: the template does
    summary_model: str = "default"  # the language model's name there
    summary_key: SecretStr | None = None  # bearer key of that endpoint


class RouterSettings(_Bus):
    """The data plane. No database password here, by design."""

    router_host: str = "127.0.0.1"  # address the router listens on
    router_port: int = 8080  # port the router listens on
    router_workers: int = 2  # processes that share the port
    router_token: SecretStr | None = None
    api_url: str = "http://127.0.0.1:8000"  # where snapshots come from while the bus is down
    spool_fsync: str = "never"  # never | tick: survive the loss of the machine, not only of the process
    spool_segment_bytes: int = 16 * 2**20  # a spool file that is larger is closed and a new one begun


class ShipperSettings(_Bus, _Scraped):
    """Moves spool segments to the bus."""

    stream_high_water: int = 200_000  # records in the stream above which the spool grows instead


class IngesterSettings(_Store, _Scraped, _Bus):
    """Folds the stream into Postgres."""

    ingest_batch: int = 5_000  # records
