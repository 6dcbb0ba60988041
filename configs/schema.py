"""Types of the settings. Their defaults, units and reasons are in the YAML files of this folder, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Partitioner = Literal["murmur2", "crc32", "any"]

#: Milvus' limit on the hits of one query.
MAX_HITS = 16384


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Kafka(Section):
    bootstrap_servers: Annotated[str, Field(pattern=r"^[^:,\s]+:\d+(,[^:,\s]+:\d+)*$")]
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    username: str | None
    password: SecretStr | None
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None

    @model_validator(mode="after")
    def _check_credentials(self) -> Kafka:
        if self.uses_sasl and (self.username is None or self.password is None):
            raise ValueError(
                f"security_protocol {self.security_protocol} needs username and password "
                "(environment: MINDSTREAM_KAFKA_USERNAME, MINDSTREAM_KAFKA_PASSWORD)"
            )
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together; set both or neither")
        return self

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    def client_settings(self, **settings: Any) -> dict[str, Any]:
        """Return settings for a confluent-kafka client, with `settings` added. Contains the password: never log it."""
        conf: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
        }
        if self.uses_sasl:
            assert self.username is not None and self.password is not None  # checked on construction
            conf |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password.get_secret_value(),
            }
        if self.uses_tls and self.ca_file is not None:
            conf["ssl.ca.location"] = str(self.ca_file)
        if self.uses_tls and self.certificate_file is not None:
            conf |= {"ssl.certificate.location": str(self.certificate_file), "ssl.key.location": str(self.key_file)}
        return conf | settings

    def refusal_text(self, detail: str) -> str:
        """Return the error text if brokers refuse the connection: the reason and the keys to check, without secrets."""
        keys = [f"security_protocol ({self.security_protocol})"]
        if self.uses_tls:
            keys += [f"ca_file ({self.ca_file or 'the system authorities'})"]
            keys += [f"certificate_file ({self.certificate_file})"] if self.certificate_file is not None else []
        if self.uses_sasl:
            keys += [f"username ({self.username})", "password", f"sasl_mechanism ({self.sasl_mechanism})"]
        return f"Kafka at {self.bootstrap_servers} refuses this client: {detail}; check kafka: {', '.join(keys)}"


class Topics(Section):
    clicks: Topic
    items: Topic
    recommendations: Topic
    dead_letters: Topic
    partitioner: Partitioner
    partitions: Count
    item_partitions: Count
    replication: Count
    retention_days: Annotated[float, Field(gt=0)]
    recommendation_retention_days: Annotated[float, Field(gt=0)]
    max_message_bytes: Annotated[int, Field(ge=65536, le=64 * 2**20)]


class Milvus(Section):
    #: Without user information, which error texts would show.
    uri: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    token: SecretStr | None
    ca_file: Path | None
    timeout: PositiveSeconds
    hnsw_m: Annotated[int, Field(ge=2, le=2048)]
    hnsw_ef_construction: Count
    hnsw_ef: Count


class Model(Section):
    artifact: Path


class History(Section):
    length: Annotated[int, Field(ge=1, le=1000)]


class Recall(Section):
    top_k: Annotated[int, Field(ge=1, le=1000)]
    interests: Count | None
    filter_seen: bool
    catalogue_share: Annotated[float, Field(ge=0, le=1)]
    new_item_cache: Count
    new_item_refresh: Seconds
    unknown_item_ttl: Seconds


class Batch(Section):
    #: Milvus accepts at most 16,384 queries per request: 4,000 users with four interests each.
    size: Annotated[int, Field(ge=1, le=4000)]
    wait: Seconds


class Items(Section):
    batch_size: Annotated[int, Field(ge=1, le=16384)]
    batch_wait: Seconds
    compare_interval: PositiveSeconds


class Worker(Section):
    group: Topic
    data_dir: Path
    standby: bool
    session_timeout: Annotated[float, Field(ge=6)]
    commit_interval: PositiveSeconds
    retry_first: PositiveSeconds
    retry_longest: PositiveSeconds
    retry_budget: PositiveSeconds
    stall_timeout: PositiveSeconds
    metrics_port: Annotated[int, Field(ge=0, le=65535)]
    metrics_host: str

    @model_validator(mode="after")
    def _check_stall_timeout(self) -> Worker:
        if self.stall_timeout < 2 * self.commit_interval:
            raise ValueError("stall_timeout must be at least twice commit_interval: progress is measured by commits")
        return self


# More attributes than a class should have: one for each key of the section.
class Service(Section):
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=0, le=65535)]
    read_token: SecretStr | None
    write_token: SecretStr | None
    admin_token: SecretStr | None
    read_token_file: Path | None
    write_token_file: Path | None
    admin_token_file: Path | None
    data_dir: Path
    allowed_hosts: tuple[Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^/*:\s]+)$")], ...]
    cors_origins: tuple[Annotated[str, Field(pattern=r"^https?://[^/*\s]+$")], ...]
    max_body_bytes: Annotated[int, Field(ge=1024)]
    max_users: Count
    max_history: Count
    max_top_k: Count
    max_exclude: Annotated[int, Field(ge=0)]
    #: Milvus accepts at most 16,384 queries per request: 4,000 users with four interests each.
    batch_users: Annotated[int, Field(ge=1, le=4000)]
    queue_users: Count
    timeout: PositiveSeconds
    max_clicks: Count
    write_timeout: PositiveSeconds
    recallable_timeout: PositiveSeconds
    insert_timeout: PositiveSeconds
    titles: Path | None
    page_listeners: Count

    @model_validator(mode="after")
    def _check_limits(self) -> Service:
        if not self.max_users <= min(self.batch_users, self.queue_users):
            raise ValueError("max_users must be at most batch_users and queue_users: a request is not divided")
        return self

    @model_validator(mode="after")
    def _check_tokens(self) -> Service:
        for scope in ("read", "write", "admin"):
            if None not in (getattr(self, f"{scope}_token"), getattr(self, f"{scope}_token_file")):
                raise ValueError(f"{scope}_token and {scope}_token_file exclude each other; set one of them")
        return self


class Producer(Section):
    linger: Seconds
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"]
    connect_timeout: PositiveSeconds
    delivery_timeout: PositiveSeconds
    stop_timeout: PositiveSeconds

    @model_validator(mode="after")
    def _check_delivery_timeout(self) -> Producer:
        if self.delivery_timeout <= self.linger:
            raise ValueError("delivery_timeout must be longer than linger")
        return self


class Replay(Section):
    order: Literal["auto", "rank", "time"]
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    speedup: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    limit: Count | None
    loop: bool
    original_ts: bool
    malformed: Literal["fail", "skip"]
    seed: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _check_pace(self) -> Replay:
        if self.rate is not None and self.speedup is not None:
            raise ValueError("rate and speedup exclude each other; set one of them to null")
        return self


class WorkerConfig(Section):
    kafka: Kafka
    topics: Topics
    milvus: Milvus
    model: Model
    history: History
    recall: Recall
    batch: Batch
    items: Items
    worker: Worker


class ServiceConfig(WorkerConfig):
    """The worker's settings and those of the recall service, which builds the same engine."""

    service: Service

    @model_validator(mode="after")
    def _check_hits(self) -> ServiceConfig:
        service = self.service
        if service.max_top_k + service.max_history + service.max_exclude + self.history.length > MAX_HITS:
            raise ValueError(
                f"service.max_top_k, service.max_history, service.max_exclude and history.length must be at most "
                f"{MAX_HITS} together: so many items are asked for when all of them are left out"
            )
        return self


class ReplayConfig(Section):
    kafka: Kafka
    topics: Topics
    producer: Producer
    replay: Replay


class TrainingData(Section):
    paths: tuple[Path, ...]
    order: Literal["auto", "rank", "time"]
    malformed: Literal["fail", "skip"]
    valid_paths: tuple[Path, ...]
    valid_fraction: Annotated[float, Field(ge=0, lt=1)]


# More attributes than a class should have: one for each choice of the model, named as in the files and artifacts.
class Network(Section):
    dim: Annotated[int, Field(ge=1, le=4096)]
    interests: Annotated[int, Field(ge=1, le=64)]
    interests_by_history: bool
    history_length: Annotated[int, Field(ge=1, le=1000)]
    initial_length: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    normalise: bool
    iterations: Annotated[int, Field(ge=1, le=10)]
    routing_temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    routing_axis: Literal["interests", "clicks"]
    routing_map: Literal["identity", "learned"]
    start: Literal["fixed", "learned"]
    recency: bool
    residual: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    output_map: Literal["identity", "learned"]
    relu: bool
    fusion: Annotated[float, Field(ge=0, le=1)]


class Loss(Section):
    readout: Literal["mean", "max", "hard", "soft"]
    fusion: Annotated[float, Field(ge=0, le=1)]
    routing_variance: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    power: Count
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    negatives: Count
    distribution: Literal["uniform", "log_uniform", "in_batch", "mixed"]
    hardness: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    targets: Count
    target_window: Annotated[float, Field(gt=0, le=1)]


class Training(Section):
    epochs: Count
    epoch_steps: Count
    max_seconds: PositiveSeconds | None
    patience: Count | None
    valid_users: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    decay: Literal["linear", "none"]
    shortest_history: Count
    user_power: Annotated[float, Field(ge=0, le=1)]
    precision: Literal["float32", "bfloat16"]
    seed: Annotated[int, Field(ge=0)]


class Output(Section):
    folder: Path
    runs: Path
    keep_epochs: bool


class TrainConfig(Section):
    data: TrainingData
    network: Network
    loss: Loss
    training: Training
    output: Output

    @model_validator(mode="after")
    def _check_that_routing_can_be_learned(self) -> TrainConfig:
        learned = {
            "network.routing_map: identity": self.network.routing_map == "learned",
            "network.start: fixed": self.network.start == "learned",
            "loss.routing_variance: 0": self.loss.routing_variance > 0,
        }
        remedies = [setting for setting, is_learned in learned.items() if is_learned]
        if remedies and self.loss.readout == "mean":
            raise ValueError(
                "loss.readout: mean computes no routing in training, so routing cannot be learned; set "
                f"{' and '.join(remedies)}, or another loss.readout"
            )
        return self


class FusionData(Section):
    path: Path | None
    malformed: Literal["fail", "skip"]
    valid_fraction: Annotated[float, Field(ge=0, lt=1)]


class FusionNetwork(Section):
    dim: Annotated[int, Field(ge=2, le=4096)]
    id_dim: Annotated[int, Field(ge=1, le=4096)]
    attribute_dim: Annotated[int, Field(ge=1, le=4096)]
    word_dim: Annotated[int, Field(ge=1, le=4096)]
    filters: Annotated[int, Field(ge=1, le=4096)]
    windows: Annotated[tuple[Annotated[int, Field(ge=1, le=16)], ...], Field(min_length=1)]


class FusionLoss(Section):
    id_penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    attribute_penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FusionTraining(Section):
    epochs: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    decay: Literal["linear", "none"]
    drop_users: Annotated[float, Field(ge=0, lt=1)]
    drop_films: Annotated[float, Field(ge=0, lt=1)]
    seed: Annotated[int, Field(ge=0)]


class FusionOutput(Section):
    folder: Path
    movies: Path


class FusionConfig(Section):
    """The settings of the fusion model (`model.fusion`)."""

    data: FusionData
    network: FusionNetwork
    loss: FusionLoss
    training: FusionTraining
    output: FusionOutput


class ProfileAttribute(Section):
    """One attribute of users; `model.serving.attributes` has the meaning of the kinds."""

    name: Annotated[str, Field(min_length=1)]
    kind: Literal["category", "categories", "number"]
    #: Only for numbers: how many bins, of equally many users, or the lower ends of all bins but the first.
    bins: Annotated[int, Field(ge=2)] | tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = None

    @model_validator(mode="after")
    def _check_bins(self) -> ProfileAttribute:
        if (self.kind == "number") != (self.bins is not None):
            raise ValueError(
                f"{self.name}: kind number needs bins, a number of bins or their edges; no other kind does"
            )
        if isinstance(self.bins, tuple) and list(self.bins) != sorted({*self.bins}):
            raise ValueError(f"{self.name}: the edges of bins ascend, and are different")
        return self


class ProfileData(Section):
    clicks: tuple[Path, ...]
    valid_clicks: tuple[Path, ...]
    profiles: tuple[Path, ...]
    order: Literal["auto", "rank", "time"]
    malformed: Literal["fail", "skip"]
    valid_fraction: Annotated[float, Field(gt=0, lt=1)]
    attributes: tuple[ProfileAttribute, ...]
    min_users: Count

    @model_validator(mode="after")
    def _check_names(self) -> ProfileData:
        names = [attribute.name for attribute in self.attributes]
        if len({*names}) < len(names):
            raise ValueError(f"an attribute is named twice in {', '.join(names)}")
        return self


class ProfileNetwork(Section):
    hidden: Annotated[int, Field(ge=0, le=4096)]


class ProfileLoss(Section):
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    targets: Count | None
    negatives: Count
    penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ProfileTraining(Section):
    epochs: Count
    patience: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    drop_attributes: Annotated[float, Field(ge=0, lt=1)]
    seed: Annotated[int, Field(ge=0)]


class ProfileConfig(Section):
    """The settings of the profile tower (`model.profile`)."""

    model: Model
    data: ProfileData
    network: ProfileNetwork
    loss: ProfileLoss
    training: ProfileTraining
