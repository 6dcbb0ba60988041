"""Three scopes, each with a token of its own.

Reads are open while no read token is set; writes and administration are refused while theirs is not.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Literal, get_args

from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from configs.errors import ConfigError
from configs.schema import Service
from streams.service.problems import Problem

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_MIN_CHARACTERS = 16
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_BEARER = HTTPBearer(auto_error=False, description="A token of the service: service.read_token, write_token, …")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Access:
    """Compares tokens with those of the configuration.

    Args:
        tokens: scope → token; None = none is set.
    """

    def __init__(self, tokens: Mapping[Scope, SecretStr | None]) -> None:
        self._tokens = {scope: token for scope, token in tokens.items() if token is not None}

    def is_open(self, scope: Scope) -> bool:
        """Return whether this scope needs no token."""
        return scope == "read" and scope not in self._tokens

    def check(self, scope: Scope, token: str | None) -> None:
        """Return if a caller with this token has the scope.

        Raises:
            Problem: it has not (401 without a valid token, 403 with one of another scope, or if none is set).
        """
        if self.is_open(scope):
            return
        if scope not in self._tokens:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "no-token-set",
                f"this needs the {scope} token, and none is set: set MINDSTREAM_SERVICE_{scope.upper()}_TOKEN, or "
                f"service.{scope}_token, and start the service again",
            )
        if token is None:
            detail = f"this needs the {scope} token: send the header Authorization: Bearer TOKEN"
            raise Problem(HTTPStatus.UNAUTHORIZED, "token-missing", detail, _CHALLENGE)
        has = self._scopes(token)
        if not has:
            raise Problem(HTTPStatus.UNAUTHORIZED, "token-unknown", "the service does not know this token", _CHALLENGE)
        if scope not in has:
            detail = f"this token is for {', '.join(has)}; this needs the {scope} token"
            raise Problem(HTTPStatus.FORBIDDEN, "scope-missing", detail)

    def requires(self, scope: Scope) -> RequiredScope:
        """Return the dependency of routes that need this scope: `APIRouter(dependencies=[Depends(…)])`."""
        return RequiredScope(self, scope)

    def _scopes(self, token: str) -> list[Scope]:
        """Return the scopes of a token. All are compared, each in constant time."""
        sent = token.encode()
        return [
            scope
            for scope, known in self._tokens.items()
            if hmac.compare_digest(sent, known.get_secret_value().encode())
        ]


class RequiredScope:
    """A dependency of FastAPI's routes that checks the token of each request.

    Args:
        access: the tokens.
        scope: what the routes need.
    """

    def __init__(self, access: Access, scope: Scope) -> None:
        self._access = access
        self._scope = scope

    async def __call__(
        self, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None
    ) -> None:
        self.check(credentials.credentials if credentials is not None else None)

    def check(self, token: str | None) -> None:
        """Return if a caller with this token has the scope. Raises as `Access.check`."""
        self._access.check(self._scope, token)


def is_local(host: str) -> bool:
    """Return whether only programs on this machine reach a server that binds to this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def known_hosts(settings: Service) -> frozenset[str] | None:
    """Return the names under which callers may reach the service, in lower case; None = any."""
    if settings.allowed_hosts:
        return frozenset(name.lower() for name in settings.allowed_hosts)
    return _LOCAL_NAMES if is_local(settings.host) else None


def load_access(settings: Service) -> Access:
    """Read the tokens of the settings and their files.

    Raises:
        ConfigError: a file cannot be read, or a token is too short.
    """
    given: dict[Scope, tuple[SecretStr | None, Path | None]] = {
        "read": (settings.read_token, settings.read_token_file),
        "write": (settings.write_token, settings.write_token_file),
        "admin": (settings.admin_token, settings.admin_token_file),
    }
    return Access({scope: _token(scope, token, file) for scope, (token, file) in given.items()})


def _token(scope: Scope, token: SecretStr | None, file: Path | None) -> SecretStr | None:
    key = f"service.{scope}_token" + ("" if file is None else "_file")
    if file is not None:
        try:
            token = SecretStr(file.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{key}: {file} cannot be read ({error})") from None
    if token is None:
        return None
    text = token.get_secret_value()
    if len(text) < _MIN_CHARACTERS or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            f"{key}: a token has at least {_MIN_CHARACTERS} printable ASCII characters without spaces; make one with "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token
