"""The url of a broker, in each form that it may take.

Invariant: what this module accepts names at least one host (or a socket), and a Sentinel url names
its service; everything else is refused in one sentence, without its password.

=====================================================  ===========================================
``redis://user:password@host:6379/0``                  one server; ``rediss`` for TLS
``unix:///path/to/socket``                             one server on this machine
``redis+sentinel://user:password@h1,h2:26379/name/0``  the primary that these Sentinels call *name*
``redis+cluster://user:password@h1,h2:6379``           a Cluster that these nodes belong to
=====================================================  ===========================================

User and password are those of the data servers. Options after ``?`` are redis-py's
(``ssl_ca_certs=...``); ``sentinel_username`` and ``sentinel_password`` are for the Sentinels.
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from ..vocabulary.masking import masked_url

_SCHEMES = ("redis", "rediss", "unix")
_GROUPED = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_CERTIFICATES = ("none", "optional", "required")
_INTEGERS = ("db", "health_check_interval", "max_connections")
#: Within what redis-py, the server and a socket can take; `isdigit` knows digits of all scripts.
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")
_SECONDS_SAID = re.compile(r"(?!0*\.?0*$)[0-9]{1,5}(\.[0-9]{1,3})?")
_SECONDS = ("socket_connect_timeout", "socket_timeout", "timeout")
_PORTS = {"sentinel": 26379, "cluster": 6379}

_ENCODE = (
    "percent-encode what is neither letter nor digit in user, password and options, such as %2F "
    "for a slash"
)


@dataclass(frozen=True)
class BrokerUrl:
    """Where a broker is, or who knows where it is.

    Args:
        plain: Url that redis-py understands: credentials, database and options of a data server.
        topology: One server, or what has to be asked for the server.
        seeds: (host, port) of the Sentinels or of nodes of the Cluster; empty for one server.
        service: Name of the primary, for Sentinels.
        sentinel_options: redis-py options (username, password) for connections to Sentinels.
    """

    plain: str
    topology: Literal["single", "sentinel", "cluster"] = "single"
    seeds: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_options: tuple[tuple[str, str], ...] = ()

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.plain.startswith("rediss:")


def _refusal(url: str, why: str = "") -> ValueError:
    return ValueError(
        f"{masked_url(url)!r} is not a broker url{why}: it must look like "
        "redis://host:6379/0, rediss://user:password@host:6380/0, unix:///path/to/socket, "
        "redis+sentinel://host1:26379,host2:26379/service/0 or "
        "redis+cluster://host1:6379,host2:6379"
    )


def parse_broker_url(url: str) -> BrokerUrl:
    """Read a broker url.

    Raises:
        ValueError: It can never work; says why, without the password.
    """
    if any(character.isspace() or not character.isprintable() for character in url):
        raise _refusal(url, f" (it holds a blank or a control character; {_ENCODE})")
    try:
        parts = urlsplit(url)
        port = parts.port if parts.scheme in _SCHEMES else None
    except ValueError:
        raise _refusal(url, f" ({_ENCODE})" if "@" in url else "") from None
    if port == 0:
        raise _refusal(url, " (port 0 is none)")
    # An unquoted / ? or # ends the part of a url that may hold a password: what is read as host,
    # port and path then are pieces of it, which no message may quote.
    if "@" in parts.path + parts.query + parts.fragment or parts.fragment:
        raise _refusal(url, f" ({_ENCODE})")
    if ";" in parts.netloc.rpartition("@")[2] + parts.path:
        raise _refusal(url, " (one url only: for several servers name their Sentinels)")
    _check_options(url, parts.query)
    if parts.scheme in _GROUPED:
        return _grouped(url, parts)
    if parts.scheme == "unix" and parts.path:
        return BrokerUrl(url)
    if parts.scheme in _SCHEMES and parts.hostname:
        # redis-py takes database 0 where it cannot read the number.
        if parts.path.strip("/") and not _WHOLE_NUMBER.fullmatch(parts.path.strip("/")):
            raise _refusal(url, " (after the host comes the number of the database)")
        return BrokerUrl(url)
    raise _refusal(url)


def _check_options(url: str, query: str) -> None:
    """Refuse what redis-py would find wrong when it connects, as if the server were away."""
    for name, value in parse_qsl(query):
        if name == "ssl_cert_reqs" and value not in _CERTIFICATES:
            raise _refusal(url, f" (ssl_cert_reqs must be one of {', '.join(_CERTIFICATES)})")
        if name in _INTEGERS and not _WHOLE_NUMBER.fullmatch(value):
            raise _refusal(url, f" ({name} must be a whole number)")
        if name in _SECONDS and not _SECONDS_SAID.fullmatch(value):
            raise _refusal(url, f" ({name} must be a number of seconds, 0.001 to 86400)")


def _grouped(url: str, parts: SplitResult) -> BrokerUrl:
    """Read a url that names Sentinels or nodes of a Cluster."""
    scheme, topology = parts.scheme.split("+")
    credentials, _, hosts = parts.netloc.rpartition("@")
    seeds = tuple(_seed(url, host, _PORTS[topology]) for host in hosts.split(",") if host)
    if not seeds:
        raise _refusal(url, " (it names no host)")
    options = dict(parse_qsl(parts.query))
    of_sentinels = tuple(
        (name, options.pop(f"sentinel_{name}"))
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    )
    path = [unquote(part) for part in parts.path.split("/") if part]
    if topology == "sentinel" and not path:
        raise _refusal(url, " (it names no service after the hosts)")
    if topology == "cluster" and path not in ([], ["0"]):
        raise _refusal(url, " (a Cluster has database 0 only)")
    service = path.pop(0) if topology == "sentinel" else ""
    database = path[0] if path else "0"
    if not _WHOLE_NUMBER.fullmatch(database):
        raise _refusal(url, f" (database {database!r} is not a number)")
    host, port = seeds[0]
    host = f"[{host}]" if ":" in host else host
    at = f"{credentials}@" if credentials else ""
    query = f"?{urlencode(options)}" if options else ""
    plain = f"{scheme}://{at}{host}:{port}/{database}{query}"
    if topology == "sentinel":
        return BrokerUrl(plain, "sentinel", seeds, service, of_sentinels)
    return BrokerUrl(plain, "cluster", seeds)


def _seed(url: str, host: str, default_port: int) -> tuple[str, int]:
    """Read ``host``, ``host:port`` or ``[v6]:port``."""
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port or default_port
    except ValueError as error:
        raise _refusal(url, f" ({host!r} is not host:port)") from error
    if not name:
        raise _refusal(url, f" ({host!r} is not host:port)")
    return name, port
