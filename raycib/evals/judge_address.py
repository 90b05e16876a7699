"""Where a judge's endpoint is, and with what it is asked: a URL with its secrets taken out.

What is shown, stored and logged is `url`; user, password, query and key are only ever sent.
"""

import base64
import os
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from raycib.errors import UserError

OWN_KEY, OPENAI_KEY = "RAYCIB_JUDGE_API_KEY", "OPENAI_API_KEY"
_OPENAI = "api.openai.com"
_ENDINGS = ("/chat/completions", "/completions", "/models")
_VERSION = re.compile(r"/v\d+[a-z0-9]*(?:/|$)")


@dataclass(frozen=True)
class Address:
    """An endpoint's address; its secrets appear in no `repr`."""

    url: str
    """Scheme, host, port and path up to the version ("/v1"), for people and for the store."""
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    authorization: str | None = field(default=None, repr=False)
    """Value of the header."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What has to be struck out of any text that a server says."""

    def redacted(self, text: str) -> str:
        """The text without this address's secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def shown(url: str) -> str:
    """A judge's URL as it may be shown: without user, password and query."""
    return _split(url)[0]


def address(url: str, key_env: str | None = None) -> Address:
    """The address of `url`, with the key that its host may have.

    A user and password in the URL are sent as they say. Otherwise the key is the value of the
    variable `key_env`, or of `RAYCIB_JUDGE_API_KEY`, or, to api.openai.com alone, of
    `OPENAI_API_KEY`. Raises `UserError` for what is no URL, and for secrets that would go over the
    network unencrypted.
    """
    base, host, secure, login, query = _split(url)
    secrets = [value for _, value in query]
    authorization = None
    if login is not None:
        coded = base64.b64encode(login.encode()).decode()
        authorization = f"Basic {coded}"
        secrets += [coded, login, login.partition(":")[2]]
    elif key := _key(host, key_env):
        authorization = f"Bearer {key}"
        secrets.append(key)
    if authorization and not (secure or _is_loopback(host)):
        raise UserError(
            f"the judge at {base} is not on this machine and has no https: its "
            f"{'password' if login else 'key'} would be sent unencrypted; give an https:// "
            "address, or tunnel it to localhost"
        )
    found = {part for secret in secrets for part in (secret, quote(secret, safe="")) if part}
    ordered = tuple(sorted(found, key=lambda secret: (-len(secret), secret)))
    return Address(base, query, authorization, ordered)


def _split(url: str) -> tuple[str, str, bool, str | None, tuple[tuple[str, str], ...]]:
    """Address up to the version, host, whether encrypted, "user:password", and the query."""
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise UserError("--judge-url has white space or a control character in it")
    found = re.fullmatch(r"(?i:(https?)://)([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?", url)
    if found is None:
        bare = re.sub(r"^[a-zA-Z][a-zA-Z0-9+.-]*://", "", url).rpartition("@")[2].partition("?")[0]
        raise UserError(
            f"--judge-url has to begin with http:// or https://, such as http://{bare or 'HOST'}"
        )
    scheme, place, path, query = found.groups()
    login, _, place = place.rpartition("@")
    try:
        parts = urlsplit(f"{scheme.lower()}://{place}")
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except (ValueError, UnicodeError):
        host, port = "", None
    if not re.fullmatch(r"[\w.:%-]+", host) or port == 0:
        raise UserError(
            "--judge-url has no host, or a port that is none; a / in a password is written %2F"
        )
    path = path.rstrip("/")
    for ending in _ENDINGS:
        path = path.removesuffix(ending)
    path = path.rstrip("/")
    if not _VERSION.search(path):
        path += "/v1"
    name = f"[{host}]" if ":" in host else host
    base = f"{scheme.lower()}://{name}{f':{port}' if port else ''}{path}"
    user = unquote(login) if login else None
    if user is not None and not user.isascii():
        raise UserError("--judge-url: a user and password are ASCII characters")
    pairs = tuple(parse_qsl(query or "", keep_blank_values=True))
    return base, host, scheme.lower() == "https", user, pairs


def _key(host: str, key_env: str | None) -> str | None:
    """The key for a host. Raises `UserError` where the variable named is empty or no key."""
    if key_env is not None and not os.environ.get(key_env):
        raise UserError(f"--judge-key-env: the variable {key_env} is empty or not set")
    names = [key_env] if key_env else [OWN_KEY, *([OPENAI_KEY] if host == _OPENAI else [])]
    for name in names:
        if key := os.environ.get(name, "").strip():
            if not re.fullmatch(r"[\x21-\x7e]+", key):
                raise UserError(f"{name} holds no key: it has white space or other characters")
            return key
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
