"""A Kafka broker and a Milvus that require TLS, a password and, the broker, rights."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from embedded import ports
from embedded.instance import Instance
from embedded.kafka import Kafka
from embedded.standalone import Standalone
from streams.kafka.acls import Right
from tests.site import wait_for

#: A user that may do everything, and the user of the broker's own connections.
SUPER, BROKER = "super", "broker"

_LISTENERS = """\
listeners=SASL_SSL://{host}:{port},SSL://{host}:{tls},CONTROLLER://{host}:{controller}
advertised.listeners=SASL_SSL://{host}:{port},SSL://{host}:{tls}
listener.security.protocol.map=SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:SSL
inter.broker.listener.name=SSL
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
# The common name of a certificate is its user; clients of this listener without a certificate are ANONYMOUS.
listener.name.ssl.ssl.client.auth=requested
listener.name.controller.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^.*CN=([^,]+).*$/$1/,DEFAULT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required {plain};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:{super};User:{broker}
"""


class Authority:
    """A certificate authority, and the certificates that it issues, as PEM files in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, name: str) -> tuple[Path, Path]:
        """Issue certificate chain and key for a server on this machine."""
        return self._write(name, self._ca.issue_cert("localhost", ports.HOST, common_name=name))

    def client(self, name: str) -> tuple[Path, Path]:
        """Issue certificate chain and key for a user."""
        return self._write(name, self._ca.issue_cert(f"{name}@mindstream.test", common_name=name))

    def _write(self, name: str, issued: trustme.LeafCert) -> tuple[Path, Path]:
        chain, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        chain.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        # Java reads keys in PKCS #8 only.
        private = load_pem_private_key(issued.private_key_pem.bytes(), None)
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return chain, key


class SecureKafka(Kafka):
    """A broker with two listeners: SCRAM and PLAIN over TLS, and TLS with client certificates on `tls_port`.

    Rights are granted by ACLs; without one, a user may do nothing.

    Args:
        instance: see `Server`.
        users: names of the users that get a password.
    """

    def __init__(self, instance: Instance, users: Iterable[str]) -> None:
        super().__init__(instance)
        self.authority = Authority(instance.folder / "certificates")
        # Random, so that tests can search logs for them.
        self.passwords = {user: f"secret-{secrets.token_hex(8)}" for user in (SUPER, *users)}
        self.tls_port = 0

    def properties(self, port: int, controller: int) -> str:
        chain, key = self.authority.server(BROKER)
        keystore = chain.with_name("keystore.pem")
        keystore.write_bytes(key.read_bytes() + chain.read_bytes())
        if not self.tls_port:
            (self.tls_port,) = ports.pick(1, taken=[port, controller])
        return _LISTENERS.format(
            host=ports.HOST,
            port=port,
            tls=self.tls_port,
            controller=controller,
            keystore=keystore,
            authority=self.authority.file,
            plain=" ".join(f'user_{user}="{password}"' for user, password in self.passwords.items()),
            super=SUPER,
            broker=BROKER,
        )

    def format_options(self) -> Sequence[str]:
        return [
            part
            for user, password in self.passwords.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for part in ("--add-scram", f"{mechanism}=[name={user},password={password}]")
        ]

    def client(self, port: int) -> dict[str, Any]:
        return super().client(port) | {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": SUPER,
            "sasl.password": self.passwords[SUPER],
            "ssl.ca.location": str(self.authority.file),
        }

    def login(self, user: str) -> dict[str, str]:
        """Return the environment variables with which our programs log in as this user."""
        return {
            "MINDSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "MINDSTREAM_KAFKA_USERNAME": user,
            "MINDSTREAM_KAFKA_PASSWORD": self.passwords[user],
            "MINDSTREAM_KAFKA_CA_FILE": str(self.authority.file),
        }

    def grant(self, user: str, rights: Iterable[Right]) -> None:
        """Grant rights, and wait until the broker applies them."""
        wanted = {self._binding(user, right) for right in rights}
        admin = self._admin()
        for created in admin.create_acls(list(wanted)).values():
            created.result(10)
        wait_for(lambda: wanted <= self._bindings(admin, user), "the rights")

    def revoke(self, user: str, rights: Iterable[Right]) -> None:
        """Revoke rights, and wait until the broker applies it."""
        revoked = {self._binding(user, right) for right in rights}
        admin = self._admin()
        filters = [
            AclBindingFilter(
                b.restype, b.name, b.resource_pattern_type, b.principal, b.host, b.operation, b.permission_type
            )
            for b in revoked
        ]
        for deleted in admin.delete_acls(filters).values():
            deleted.result(10)
        wait_for(lambda: not revoked & self._bindings(admin, user), "the revocation")

    def _admin(self) -> AdminClient:
        assert self.entry is not None
        return AdminClient({**self.client(self.entry.port), "log_level": 0})

    @staticmethod
    def _binding(user: str, right: Right) -> AclBinding:
        kind = ResourceType[right.resource_type.upper()]
        pattern = ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL
        return AclBinding(kind, right.name, pattern, f"User:{user}", "*", right.operation, AclPermissionType.ALLOW)

    @staticmethod
    def _bindings(admin: AdminClient, user: str) -> set[AclBinding]:
        every: Any = None  # the stubs accept strings only
        kind, pattern, permission = ResourceType.ANY, ResourcePatternType.ANY, AclPermissionType.ANY
        of_user = AclBindingFilter(kind, every, pattern, f"User:{user}", every, AclOperation.ANY, permission)
        return set(admin.describe_acls(of_user, request_timeout=10).result(10))


class SecureMilvus(Standalone):
    """A standalone Milvus with a password, and TLS on its port."""

    token = "root:Milvus"  # noqa: S105 - the default of every Milvus

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self.authority = Authority(instance.folder / "certificates")

    def uri(self, port: int) -> str:
        return f"https://{ports.HOST}:{port}"

    def client(self) -> dict[str, Any]:
        return {"token": self.token, "server_pem_path": str(self.authority.file)}

    def adjust_settings(self, settings: dict[str, Any]) -> None:
        chain, key = self.authority.server("milvus")
        settings["common"]["security"] = {"authorizationEnabled": True, "tlsMode": 1}
        settings["tls"] = {
            "serverPemPath": str(chain),
            "serverKeyPath": str(key),
            "caPemPath": str(self.authority.file),
        }
