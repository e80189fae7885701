"""Calls to addresses that users name: webhooks. What they may reach, and how they are made.

A name is resolved once, every address it has must be public, and the connection goes to one of
those very addresses: a name that points elsewhere a moment later (DNS rebinding) gains nothing.
Redirects are not followed, proxies of the environment not asked, and time and size are bounded.
`LUTHIER_OUTGOING_ALLOW` opens names and networks of the administrator's own.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from core.errors import LuthierError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ANSWER_BYTES = 1024
"""No more of an answer is read."""

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address that is reached. Mapped addresses have theirs in
the same place."""
NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "168.63.129.16/32",  # Azure's own services, as its virtual machines see them
        "2001::/23",
        "3fff::/20",
    )
)
"""Set aside by IANA, but taken for global by some of the Pythons that we run on."""

_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9.])?|[0-9a-f:.]+")
_TARGET = re.compile(r"[\x21-\x7e]*")


class OutgoingRefused(LuthierError):
    """The URL is one that this server does not call."""

    code, status, kind = "url_not_allowed", 400, "invalid_request_error"


class OutgoingFailed(Exception):
    """No whole answer came: the text says why."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    """Its first `ANSWER_BYTES`."""


@dataclass(frozen=True)
class Target:
    """A URL in its parts."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def address(self) -> Address | None:
        """The host, where it is an address and no name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


def is_public(address: Address) -> bool:
    """Whether everybody reaches the same thing there, whatever form it is written in."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.sixtofour is not None:
            return is_public(address.sixtofour)
        if address not in GLOBAL_UNICAST:
            return False
    set_aside = any(address in network for network in NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not set_aside


@dataclass(frozen=True)
class Rules:
    """What may be called. `names` and `networks` are what the administrator opened: plain HTTP and
    addresses that are not public are allowed there alone."""

    names: frozenset[str]
    networks: tuple[Network, ...]

    @classmethod
    def parse(cls, allowed: list[str]) -> Rules:
        """Each entry is a host name, an address or a network in CIDR form."""
        names, networks = set(), []
        for entry in allowed:
            try:
                networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                names.add(entry.lower())
        return cls(frozenset(names), tuple(networks))

    def check(self, url: str, param: str | None = None) -> Target:
        """The URL's parts. Raises OutgoingRefused for what is plain without resolving a name."""
        target = _parse(url, param)
        if not target.secure and not self.names and not self.networks:
            raise OutgoingRefused(
                "This server calls https:// URLs alone; LUTHIER_OUTGOING_ALLOW may open others.",
                param=param,
            )
        if target.address is not None:
            self._check_addresses(target, [target.address], param)
        return target

    def resolve(self, target: Target) -> list[Address]:
        """All addresses of the target's host, each of them allowed.

        Raises OutgoingRefused, or OutgoingFailed for a name that has none. How long the system's
        resolver takes is for its own configuration to bound.
        """
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise OutgoingFailed(f"{target.host} cannot be resolved: {error.strerror}.") from error
        texts = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
        addresses = [ipaddress.ip_address(text) for text in texts]
        self._check_addresses(target, addresses, None)
        return addresses

    def _check_addresses(self, target: Target, addresses: list[Address], param: str | None) -> None:
        if target.host in self.names:
            return
        for address in addresses:
            # A mapped address reaches the IPv4 one, so it is that one which must be opened.
            reached = getattr(address, "ipv4_mapped", None) or address
            if any(reached in network for network in self.networks):
                continue
            if not is_public(address):
                raise OutgoingRefused(
                    f"{target.host} is not a public address"
                    + (". " if str(address) == target.host else f": it leads to {address}. ")
                    + "The administrator may open it with LUTHIER_OUTGOING_ALLOW.",
                    param=param,
                )
            if not target.secure:
                raise OutgoingRefused("Plain http:// is for opened addresses alone.", param=param)


def _parse(url: str, param: str | None) -> Target:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise OutgoingRefused(f"This is no URL: {error}.", param=param) from error
    if parts.scheme not in ("https", "http"):
        raise OutgoingRefused("The URL must begin with https://.", param=param)
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise OutgoingRefused(
            "The URL may hold no user name, no password and no #fragment. Who calls is told by "
            "the signature.",
            param=param,
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _HOST.fullmatch(host) or not _TARGET.fullmatch(path):
        raise OutgoingRefused(
            "The URL needs a host, and plain ASCII: names in punycode, other characters "
            "percent-encoded.",
            param=param,
        )
    secure = parts.scheme == "https"
    return Target(secure, host, port if port is not None else (443 if secure else 80), path)


def post(
    rules: Rules, url: str, body: bytes, headers: Mapping[str, str], *, seconds: float
) -> Answer:
    """POST once, in `seconds` after the name is resolved. Raises OutgoingRefused, OutgoingFailed.

    An answer of any status is an answer.
    """
    target = rules.check(url)
    addresses = rules.resolve(target)
    kind = HTTPSConnection if target.secure else HTTPConnection
    connection = kind(target.host, target.port, timeout=seconds)
    out_of_time = threading.Event()
    try:
        raw = _connect(addresses, target.port, seconds)
        with contextlib.closing(_dressed(raw, target)) as opened:
            # http.client connects by itself only where it has no socket.
            connection.sock = opened
            with _deadline(opened, seconds, out_of_time):
                if isinstance(opened, ssl.SSLSocket):
                    opened.do_handshake()
                connection.request("POST", target.path, body, dict(headers))
                response = connection.getresponse()
                answer = Answer(response.status, response.read(ANSWER_BYTES))
                if out_of_time.is_set():  # What is cut off in its head looks as if it were whole.
                    raise TimeoutError
                return answer
    except (OSError, HTTPException) as error:
        if out_of_time.is_set() or isinstance(error, TimeoutError):
            raise OutgoingFailed(f"No answer within {seconds:g} seconds.") from error
        raise OutgoingFailed(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _connect(addresses: list[Address], port: int, seconds: float) -> socket.socket:
    """A connection to the first address that takes one."""
    *first, last = addresses
    for address in first:
        with contextlib.suppress(OSError):
            return socket.create_connection((str(address), port), seconds / len(addresses))
    return socket.create_connection((str(last), port), seconds / len(addresses))


def _dressed(raw: socket.socket, target: Target) -> socket.socket:
    """The socket, for TLS under the host's name where the URL says so; no handshake yet."""
    if not target.secure:
        return raw
    return ssl.create_default_context().wrap_socket(
        raw, server_hostname=target.host, do_handshake_on_connect=False
    )


@contextlib.contextmanager
def _deadline(opened: socket.socket, seconds: float, expired: threading.Event) -> Iterator[None]:
    """Cut the connection after so many seconds, however steadily it drips: a socket's own time-out
    begins anew with each byte."""

    def cut() -> None:
        expired.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(opened, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
