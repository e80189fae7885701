"""Which addresses may be called, and how a call is bounded: against real sockets."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from core.outgoing import ANSWER_BYTES, OutgoingFailed, OutgoingRefused, Rules, is_public, post

CLOSED = Rules.parse([])
OPEN = Rules.parse(["127.0.0.0/8"])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "100::1",
        "4000::1",
    ],
)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "93.184.215.14",
        "2606:4700::1111",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
        "2002:101:101::",
    ],
)
def test_what_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/hook",
        "https://[::1]/hook",
        "https://[::ffff:10.0.0.1]:8443/",
        "http://example.com/hook",
        "http://1.1.1.1/hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user:password@example.com/",
        "https://user@example.com/",
        "https://example.com/#part",
        "https://example.com:port/",
        "https://example.com:99999/",
        "https://exam ple.com/",
        "https://example.com/a b",
        "https://example.com/\r\nX: y",
        "https://bücher.example/",
        "https://[fe80::1%25eth0]/",
        "nonsense",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(OutgoingRefused):
        CLOSED.check(url, "url")


def test_a_url_in_its_parts() -> None:
    target = CLOSED.check("https://Hooks.Example.com/a?b=c")
    assert (target.host, target.port, target.path) == ("hooks.example.com", 443, "/a?b=c")
    assert CLOSED.check("https://example.com:8443").port == 8443


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1"])
def test_a_name_that_leads_to_a_private_address(host: str) -> None:
    """However the address is spelt: what it resolves to is what counts."""
    with pytest.raises(OutgoingRefused, match=r"127\.0\.0\.1|::1"):
        CLOSED.resolve(CLOSED.check(f"https://{host}/"))


def test_one_private_address_among_several_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one thing that cannot be had for real without a name server of one's own."""
    found = [(2, 1, 6, "", ("1.1.1.1", 443)), (2, 1, 6, "", ("10.0.0.1", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)
    with pytest.raises(OutgoingRefused, match=r"10\.0\.0\.1"):
        CLOSED.resolve(CLOSED.check("https://example.com/"))


def test_what_the_administrator_opened() -> None:
    rules = Rules.parse(["10.0.0.0/8", "Hooks.Internal", "127.0.0.1"])
    rules.check("https://10.2.3.4/")
    rules.check("http://10.2.3.4/")
    rules.check("http://hooks.internal/")
    rules.check("https://[::ffff:10.0.0.1]/")
    for url in ("https://192.168.0.1/", "http://1.1.1.1/", "https://127.0.0.2/"):
        with pytest.raises(OutgoingRefused):
            rules.check(url)
    # Plain HTTP to a name that leads elsewhere than to what is opened.
    with pytest.raises(OutgoingRefused):
        Rules.parse(["10.0.0.0/8"]).resolve(OPEN.check("http://localhost/"))


@contextmanager
def receiver(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server of one connection, which does what it likes; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    serve(connection)
                except OSError:
                    return  # cut off, as it should be

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/hook?x=1"
        thread.join(5)
        assert not thread.is_alive()


def test_a_call_and_its_answer() -> None:
    seen = bytearray()

    def serve(connection: socket.socket) -> None:
        while not seen.endswith(b"\r\n\r\nhello"):
            seen.extend(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nok")

    with receiver(serve) as url:
        answer = post(OPEN, url, b"hello", {"webhook-id": "msg_1"}, seconds=5)
    assert (answer.status, answer.body) == (302, b"ok")
    head = bytes(seen).split(b"\r\n\r\n")[0].decode().split("\r\n")
    assert head[0] == "POST /hook?x=1 HTTP/1.1"
    assert any(line.startswith("Host: 127.0.0.1:") for line in head)
    assert "webhook-id: msg_1" in head


def test_an_answer_without_end_is_not_read_to_it() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with receiver(serve) as url:
        answer = post(OPEN, url, b"", {}, seconds=5)
    assert (answer.status, len(answer.body)) == (200, ANSWER_BYTES)


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_a_receiver_that_drips_is_cut_off_in_time(first: bytes) -> None:
    """Each byte would begin a socket's time-out anew."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(first)
        while True:
            connection.sendall(b"x")
            time.sleep(0.1)

    began = time.monotonic()
    with receiver(serve) as url, pytest.raises(OutgoingFailed, match="No answer within"):
        post(OPEN, url, b"", {}, seconds=0.6)
    assert time.monotonic() - began < 3


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OutgoingFailed, match="refused"):
        post(OPEN, f"http://127.0.0.1:{port}/", b"", {}, seconds=2)
    with pytest.raises(OutgoingFailed, match="cannot be resolved"):
        post(CLOSED, "https://nothing.invalid/", b"", {}, seconds=2)


class TestTls:
    """The connection goes to an address; who is there is checked by the name in the URL."""

    @pytest.fixture(autouse=True)
    def _trusted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = tmp_path
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))

    def receive(self, certified: str, host: str = "localhost") -> tuple[int, list[str | None]]:
        """POST to a receiver whose certificate is for one name; what it answered, and the names
        that it was asked for."""
        certificate(self.folder, certified)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.folder / "cert.pem", self.folder / "key.pem")
        asked: list[str | None] = []
        context.sni_callback = lambda _socket, name, _context: asked.append(name)

        def serve(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(65536)
                secure.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        with receiver(serve) as url:
            url = url.replace("http://127.0.0.1", f"https://{host}")
            return post(Rules.parse(["127.0.0.0/8", "::1"]), url, b"", {}, seconds=5).status, asked

    def test_the_right_name(self) -> None:
        assert self.receive("localhost") == (204, ["localhost"])

    def test_another_ones_certificate(self) -> None:
        with pytest.raises(OutgoingFailed, match="CERTIFICATE_VERIFY_FAILED"):
            self.receive("elsewhere.example")


def certificate(folder: Path, name: str) -> None:
    """A certificate for a name, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(written)
