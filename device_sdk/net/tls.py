"""TLS over any stream: ``mqtts://host:port``, or the option ``tls`` of any other URL.

::

    tls = TLSOptions(ca_file="ca.pem", certificate="device.pem", key="device.key")
    open_transport("mqtts://broker.example", tls=tls)
    open_transport("serial:///dev/ttyUSB0", tls=TLSOptions(server_name="broker.example"))

One implementation on :class:`ssl.MemoryBIO` for all of them: OpenSSL never sees a descriptor.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
from contextlib import suppress

from device_sdk._arguments import explained
from device_sdk._folding import Folding
from device_sdk._load import load
from device_sdk._log import Log
from device_sdk.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConnectFailedError,
    TlsError,
    TransportClosedError,
)
from device_sdk.net.base import ParsedUrl, Transport, takes
from device_sdk.net.layer import Layer, Link
from device_sdk.net.stack import TCP_STREAM_OPTIONS, tcp_stream
from device_sdk.net.tls_reasons import (
    CLOSED_EARLY,
    clock_problem,
    explain,
    failure,
    reason,
    rejects_certificate,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from device_sdk.net.tls_psk import Psk

    Password = str | bytes | Callable[[], str | bytes]

__all__ = ["TLSOptions", "TlsTransport", "tls_stream"]

# No record holds more plaintext (RFC 8446 §5.1), so that one read() returns one record.
RECORD_BYTES = 16384
# Bytes encrypted at once. A piece counts as sent when the stream below has taken all of it, which must not
# take long on a slow line: 2 KiB are 2 s at 9,600 baud. Each piece costs 6 µs, independent of its size.
PIECE_BYTES = range(2048, 65537)

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# A certificate in a folder that `openssl rehash` has prepared.
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")

_PSK = "device_sdk.net.tls_psk:Psk"  # imported when it is needed

_log = Log("device_sdk.net.tls")


@takes(*TCP_STREAM_OPTIONS)
def tls_stream(url: ParsedUrl, *, tls: TLSOptions | None = None, **options: Any) -> TlsTransport:
    """Return TLS over TCP to the host of the URL, not opened yet: the stream of ``mqtts://``.

    ``tls``: by default the CA certificates of the system are trusted. The other options are those of
    :func:`~device_sdk.net.stack.tcp_stream`.
    """
    return TlsTransport(tcp_stream(url, **options), TLSOptions() if tls is None else tls, url.host)


class TLSOptions:
    """Options of TLS: trust, identity, versions. May be shared by several transports, in any thread.

    Args:
        ca_file: PEM file with the CA certificates to trust *instead of* those of the system.
        ca_path: folder of such files, prepared by ``openssl rehash``; instead or besides.
        ca_data: such certificates, PEM as str or DER as bytes; instead or besides.
        crl_file: PEM file with the revocation list of the CA that issued the broker's certificate, which then
            has to be in force and must not name that certificate. Lists of further CAs may be in it.
        certificate: PEM file with our certificate, and those between it and its CA.
        key: PEM file with its private key; ``None``: it is in ``certificate``.
        key_password: of the private key, or a callable that returns it. There is never a prompt.
        alpn: protocols to offer in this order, such as ``["mqtt"]`` (RFC 7301).
        server_name: the name to ask for (SNI) and to find in the broker's certificate; ``None``: the host
            of the URL. Needed if the URL names no host.
        check_hostname: False: the chain is checked, and not whether it is the certificate of this host:
            whoever has one of a trusted CA may pose as the broker. Each connect logs a warning.
        psk: a pair ``(identity, key)`` of str and bytes that the broker knows, instead of any certificate; or
            a callable that returns it for each connect (RFC 4279). Needs Python 3.13.
        psk_file: file with one line ``IDENTITY:KEY``, the key in hexadecimal digits; instead of ``psk``.
        minimum_version: ``"1.2"`` or ``"1.3"``.
        ciphers: cipher suites of TLS 1.2 in OpenSSL's notation; those of TLS 1.3 are fixed.
        context: a ready client context. It replaces all of the above but ``server_name``.
        session_resumption: resume the last session, for a shorter handshake (RFC 8446 §2.2); not with a psk.
        insecure: **check nothing**: an attacker on the way can read and change everything. Each connect
            logs a warning.

    The files are read now, so that a mistake is an error here, and again whenever they have changed: new
    certificates are used from the next connect on. Write new files aside and rename them, key first.

    Raises: ArgumentError: an option that can never work, by its name: a missing file, a key that does not
    fit, a wrong or missing password, no CA certificate to trust. ArgumentTypeError.
    """

    __slots__ = ("_alpn", "_built", "_ciphers", "_context", "_identity", "_lock", "_minimum_version",
                 "_signature", "_trust", "check_hostname", "insecure", "psk", "server_name",
                 "session_resumption")  # fmt: skip

    @explained
    def __init__(
        self,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        ca_path: str | os.PathLike[str] | None = None,
        ca_data: str | bytes | None = None,
        crl_file: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        key_password: Password | None = None,
        psk: tuple[str, bytes] | Callable[[], tuple[str, bytes]] | None = None,
        psk_file: str | os.PathLike[str] | None = None,
        alpn: Sequence[str] = (),
        server_name: str | None = None,
        check_hostname: bool = True,
        minimum_version: str = "1.2",
        ciphers: str | None = None,
        context: ssl.SSLContext | None = None,
        session_resumption: bool = True,
        insecure: bool = False,
    ) -> None:
        if isinstance(alpn, str):
            raise ArgumentTypeError("alpn", f"must be a sequence of str such as [{alpn!r}], not one str")
        if minimum_version not in _VERSIONS:
            raise ArgumentError("minimum_version", f"must be '1.2' or '1.3', not {minimum_version!r}")
        if key is not None and certificate is None:
            raise ArgumentError("key", "belongs to a certificate; give certificate= as well")
        checks = {
            "ca_file": ca_file, "ca_path": ca_path, "ca_data": ca_data, "crl_file": crl_file,
            "certificate": certificate, "insecure": insecure or None,
            "check_hostname": None if check_hostname else False,
        }  # fmt: skip
        others = {"ciphers": ciphers, "alpn": alpn or None, "psk": psk, "psk_file": psk_file}
        if context is not None:
            _check_context(context, {**checks, **others}, minimum_version)
        self.psk: Psk | None = None
        if psk is not None or psk_file is not None:
            _refuse(checks, "psk" if psk_file is None else "psk_file", "replaces all certificates")
            self.psk = load(_PSK)(psk, psk_file)
        if insecure:
            _refuse({"crl_file": crl_file}, "insecure", "checks nothing")
        self._trust = ca_file, ca_path, ca_data, crl_file
        self._identity = certificate, key, key_password
        self._alpn = list(alpn)
        self._minimum_version = _VERSIONS[minimum_version]
        self._ciphers = ciphers
        self._context = context
        self.server_name = server_name
        self.check_hostname = check_hostname
        # A resumed session has no identity: Mosquitto would not know whose it is. Nor is it any shorter.
        self.session_resumption = session_resumption and self.psk is None
        self.insecure = insecure
        self._lock = threading.Lock()
        self._built: ssl.SSLContext | None = None
        self._signature: object = None
        self.current_context()

    def current_context(self) -> ssl.SSLContext:
        """Return the context for the next connection: the same one until a file changes.

        Any thread. Reads files, calls ``key_password`` when it loads the key, and ``psk`` each time.
        Raises: ArgumentError: by the name of the option.
        """
        if self._context is not None:
            return self._context
        with self._lock:
            if self.psk is not None:
                self.psk.refresh()
            # Before reading: a file that changes while we read is read again next time.
            signature = self._sign_files()
            if self._built is None or signature != self._signature:
                self._built = self._build()  # if it raises, so does every attempt until the files change
                self._signature = signature
            return self._built

    def __repr__(self) -> str:
        return f"TLSOptions(server_name={self.server_name!r}, insecure={self.insecure})"

    def _sign_files(self) -> object:
        """Return something that differs when a file, or a folder's list of files, has been changed."""
        system = ssl.get_default_verify_paths()
        ca_file, ca_path, ca_data, crl_file = self._trust
        if ca_file is ca_path is ca_data is None:
            ca_file, ca_path = system.cafile, system.capath
        signature = []
        for path in (ca_file, ca_path, crl_file, *self._identity[:2]):
            try:
                status = os.stat(os.fspath(path)) if path is not None else None
            except (OSError, TypeError, ValueError):  # loading it raises with the reason
                status = None
            signature.append(
                status and (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            )
        return signature

    def _build(self) -> ssl.SSLContext:
        # Not create_default_context(): it writes the session keys to the file that SSLKEYLOGFILE names.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = self._minimum_version
        context.options |= ssl.OP_NO_RENEGOTIATION
        if self._ciphers is not None:
            try:
                context.set_ciphers(self._ciphers)
            except ssl.SSLError as error:
                problem = f"OpenSSL knows no cipher suite in {self._ciphers!r}; see `openssl ciphers -v`"
                raise ArgumentError("ciphers", problem) from error
        if self._alpn:
            try:
                context.set_alpn_protocols(self._alpn)
            except (ssl.SSLError, UnicodeError) as error:
                problem = f"each protocol has 1..255 ASCII characters; found {self._alpn!r}"
                raise ArgumentError("alpn", problem) from error
        if self._identity[0] is not None:
            self._load_certificate(context, self._identity[0])
        if self.psk is not None:
            self.psk.prepare(context, own_suites=self._ciphers is not None)
            return context
        context.check_hostname = self.check_hostname and not self.insecure
        if self.insecure:
            context.verify_mode = ssl.CERT_NONE
        else:
            self._load_authorities(context)
            _load_revocations(context, self._trust[3])
        return context

    def _load_authorities(self, context: ssl.SSLContext) -> None:
        ca_file, ca_path, ca_data, _ = self._trust
        if ca_file is ca_path is ca_data is None:
            context.load_default_certs()
            folder = ssl.get_default_verify_paths().capath
            if not context.cert_store_stats()["x509"] and not _holds_certificates(folder):
                raise ArgumentError(
                    "ca_file", "is not given, and this system has no CA certificates: "
                    "install the package ca-certificates, or give the broker's CA"
                )  # fmt: skip
            return
        if ca_file is not None:
            _check_readable("ca_file", ca_file)
            try:
                context.load_verify_locations(cafile=ca_file)
            except (OSError, ValueError) as error:
                problem = f"{os.fspath(ca_file)!r} holds no CA certificate in PEM form ({reason(error)})"
                raise ArgumentError("ca_file", problem) from error
        if ca_path is not None:
            if not _holds_certificates(ca_path):
                problem = f"{os.fspath(ca_path)!r} holds no CA certificates; prepare it with `openssl rehash`"
                raise ArgumentError("ca_path", problem)
            context.load_verify_locations(capath=ca_path)
        if ca_data is not None:
            if isinstance(ca_data, bytes) and ca_data.lstrip().startswith(b"-----BEGIN"):
                ca_data = ca_data.decode("ascii", "replace")
            try:
                context.load_verify_locations(cadata=ca_data)
            except (OSError, ValueError, TypeError) as error:
                problem = f"holds no CA certificate, PEM as str or DER as bytes ({reason(error)})"
                raise ArgumentError("ca_data", problem) from error

    def _load_certificate(self, context: ssl.SSLContext, certificate: str | os.PathLike[str]) -> None:
        _, own_key, key_password = self._identity
        _check_readable("certificate", certificate)
        if own_key is not None:
            _check_readable("key", own_key)
        password = _Password(key_password)
        key = certificate if own_key is None else own_key
        try:
            # Always with a callable: without one OpenSSL would prompt on the terminal.
            context.load_cert_chain(certificate, own_key, password)
        except (ssl.SSLError, ValueError, TypeError) as error:
            if password.missing:
                problem = f"the private key in {os.fspath(key)!r} is encrypted; give its password"
                raise ArgumentError("key_password", problem) from error
            if password.asked:
                problem = f"does not open the private key in {os.fspath(key)!r} ({reason(error)})"
                raise ArgumentError("key_password", problem) from error
            name = "certificate" if own_key is None else "key"
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                problem = f"{os.fspath(key)!r} is not the key of {os.fspath(certificate)!r}"
                raise ArgumentError(name, problem) from error
            problem = f"{os.fspath(certificate)!r} and {os.fspath(key)!r} do not hold a certificate and "
            raise ArgumentError(name, f"{problem}its private key in PEM form ({reason(error)})") from error


def _check_context(context: object, others: Mapping[str, object], minimum_version: str) -> None:
    """Make sure that it is a client's, and that nothing is given besides."""
    if not isinstance(context, ssl.SSLContext):
        raise ArgumentTypeError("context", f"must be an ssl.SSLContext, not {type(context).__name__}")
    if any(each is not None for each in others.values()) or minimum_version != "1.2":
        raise ArgumentError("context", "is ready as it is; set the other options on the context")
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ArgumentError("context", "is a server's; make it with ssl.PROTOCOL_TLS_CLIENT")


def _refuse(others: Mapping[str, object], argument: str, why: str) -> None:
    """Make sure that none of these is given together with this argument."""
    for name, value in others.items():
        if value is not None:
            raise ArgumentError(argument, f"{why}: leave out {name}=")


def _load_revocations(context: ssl.SSLContext, file: str | os.PathLike[str] | None) -> None:
    """Have the broker's own certificate looked up in these lists."""
    if file is None:
        return
    _check_readable("crl_file", file)
    before = context.cert_store_stats()
    try:
        context.load_verify_locations(cafile=file)
    except (OSError, ValueError) as error:
        problem = f"{os.fspath(file)!r} holds no revocation list in PEM form ({reason(error)})"
        raise ArgumentError("crl_file", problem) from error
    after = context.cert_store_stats()
    if after["x509"] > before["x509"]:
        problem = (
            f"{os.fspath(file)!r} holds certificates too, which would be trusted: give those as ca_file="
        )
        raise ArgumentError("crl_file", problem)
    if after["crl"] == before["crl"]:
        raise ArgumentError("crl_file", f"{os.fspath(file)!r} holds no revocation list (X509 CRL)")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


class _Password:
    """The callable that OpenSSL asks for the password; remembers whether it was called."""

    __slots__ = ("_source", "asked", "missing")

    def __init__(self, source: Password | None) -> None:
        self._source = source
        self.asked = self.missing = False

    def __call__(self) -> str | bytes:
        self.asked = True
        if self._source is None:
            self.missing = True
            return b""
        if not callable(self._source):
            return self._source
        try:
            return self._source()
        except Exception as error:  # the application's own code
            raise ArgumentError("key_password", f"the callable for it raised {error!r}") from error


def _check_readable(argument: str, path: str | os.PathLike[str]) -> None:
    try:
        with open(os.fspath(path), "rb"):
            pass
    except OSError as error:
        raise ArgumentError(argument, f"cannot read {os.fspath(path)!r}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(argument, f"must be the path of a file; {error}") from error


def _holds_certificates(folder: str | os.PathLike[str] | None) -> bool:
    try:
        return folder is not None and any(map(_HASHED_NAME.fullmatch, os.listdir(folder)))
    except OSError:
        return False


class _Fault:
    """The reason for the end of a connection; ``is_rejection``: our certificate was rejected."""

    __slots__ = ("is_rejection", "text")

    def __init__(self, text: str, is_rejection: bool) -> None:
        self.text = text
        self.is_rejection = is_rejection


class _Terms:
    """State that the handshakes of one transport share: the options, and the session to resume."""

    __slots__ = ("_context", "_folding", "_session", "options")

    def __init__(self, options: TLSOptions) -> None:
        self.options = options
        self._folding = Folding(_log)
        self._session: ssl.SSLSession | None = None
        self._context: ssl.SSLContext | None = None  # that of the session

    def session_for(self, context: ssl.SSLContext) -> ssl.SSLSession | None:
        """Return the session of the last connection with this context."""
        return self._session if self._context is context else None

    def agreed(self, context: ssl.SSLContext) -> None:
        """Note the context of the connection: a session of another context cannot be resumed."""
        if context is not self._context:
            self._session, self._context = None, context

    def keep_session(self, connection: ssl.SSLObject) -> None:
        """Take the session of an ending connection: the tickets of TLS 1.3 arrive after the handshake."""
        if self.options.session_resumption:
            session = connection.session
            if session is not None and (session.has_ticket or connection.version() == "TLSv1.2"):
                self._session = session

    def warn_if_insecure(self, context: ssl.SSLContext, where: str) -> None:
        """Log what a context does not check."""
        what = ""
        if self.options.psk is not None:
            return
        if context.verify_mode != ssl.CERT_REQUIRED:
            what = "the broker's certificate is not checked"
        elif not context.check_hostname:
            what = "the name in the certificate is not checked"
        if what:
            self._folding.warning("insecure", what, "%s: INSECURE, %s", where, what)

    def forget_session(self) -> None:
        """Make the next handshake a full one."""
        self._session = None


class TlsTransport(Layer):
    """TLS over another stream.

    ``host``: the name in the server's certificate, if ``options`` give no ``server_name``.

    An end without close_notify counts as the end of the stream: MQTT packets have lengths, which reveal a
    truncation (RFC 8446 §6.1).

    Raises: ArgumentError: there is no name to look for in the certificate.
    """

    __slots__ = ("_ended", "_fault", "_incoming", "_last_words", "_outgoing", "_owed", "_pending",
                 "_piece", "_ssl", "_terms", "server_name")  # fmt: skip

    def __init__(self, inner: Transport, options: TLSOptions, host: str = "") -> None:
        super().__init__(inner, f"tls {inner.description.removeprefix('tcp ')}")
        if not isinstance(options, TLSOptions):
            raise ArgumentTypeError("tls", f"must be TLSOptions, not {type(options).__name__}")
        # A zone is local, a final dot is for the resolver: certificates have neither (RFC 6066 §3).
        self.server_name = (options.server_name or host).partition("%")[0].rstrip(".")
        context = options.current_context()
        if not self.server_name and context.check_hostname:
            raise ArgumentError(
                "server_name", f"{inner.description} names no host: give TLSOptions(server_name=...), "
                "the name in the broker's certificate"
            )  # fmt: skip
        try:
            context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=self.server_name or None)
        except ValueError as error:
            raise ArgumentError("server_name", f"{self.server_name!r} is no host name: {error}") from error
        self._terms = _Terms(options)
        self._reset()

    def _reset(self) -> None:
        self._ssl: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._pending = memoryview(b"")  # ciphertext that the stream below has not taken yet
        self._owed = 0  # bytes of plaintext in it, which the caller still has and offers again
        self._piece = RECORD_BYTES
        self._ended = False
        self._fault: _Fault | None = None  # why it has ended, if it was not closed
        self._last_words = b""  # returned by recv() before it reports the end

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The connection: its version, cipher, ALPN protocol, certificate, session_reused.

        ``None`` while the stream is not open. Owner thread.
        """
        return self._ssl

    def _handshake(self, link: Link) -> object:
        cannot_open = f"cannot open {self.description}"
        try:
            context = self._terms.options.current_context()
        except ArgumentError as error:  # a file was fine and has changed
            raise TlsError(f"{cannot_open}: {error}") from error
        self._terms.warn_if_insecure(context, self.description)
        if problem := clock_problem(context):
            raise ConnectFailedError(f"{cannot_open}: {problem}")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        ssl_object = context.wrap_bio(
            incoming,
            outgoing,
            server_hostname=self.server_name or None,
            session=self._terms.session_for(context),
        )
        done, first, psk = False, b"", self._terms.options.psk
        while not done:
            try:
                ssl_object.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self._terms.forget_session()
                with suppress(OSError):
                    link.send_all(outgoing.read())  # the alert puts the reason into the server's log
                problem = "" if psk is None else psk.explain(error)
                problem = problem or explain(error, self.server_name, first)
                raise failure(error, f"{cannot_open}: {problem}") from error
            if outgoing.pending:
                link.send_all(outgoing.read())
            if not done:
                try:
                    data = link.recv()
                except TransportClosedError as error:
                    raise ConnectFailedError(f"{cannot_open}: {CLOSED_EARLY} ({error})") from error
                if not data:
                    raise ConnectFailedError(f"{cannot_open}: {CLOSED_EARLY}")
                incoming.write(data)
                first = first or data
        if psk is not None and (problem := psk.problem(ssl_object)):
            raise TlsError(f"{cannot_open}: {problem}")
        link.unread(incoming.read())
        return ssl_object, incoming, outgoing, context

    def _adopt(self, state: tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO, ssl.SSLContext]) -> None:
        self._ssl, self._incoming, self._outgoing, context = state
        self._terms.agreed(context)

    def _forget(self) -> None:
        if self._ssl is not None:
            self._terms.keep_session(self._ssl)
            if not (self._pending or self._fault):
                with suppress(OSError):
                    self._ssl.unwrap()  # puts close_notify into the buffer; the answer is not waited for
                with suppress(OSError):
                    self.inner.send(self._outgoing.read())
        self._reset()

    def recv(self) -> bytes | None:
        """Read the stream below once and return all the plaintext of that; see :meth:`Transport.recv`."""
        if self._ended:
            return self._tell_end()
        data = self._recv_below() if self._early else self.inner.recv()
        if data:
            plaintext = self._decrypt(data)
        else:
            plaintext, self._ended = data, data is not None
        if self._pending or self._outgoing.pending:
            self._answer()
        if self._ended:
            if not plaintext:
                return self._tell_end()
            self.inner.abort()  # so that the descriptor is readable for the next call
        return plaintext

    def _decrypt(self, data: bytes) -> bytes | None:
        """Return all the plaintext there is, ``None`` for none; detect the end."""
        assert self._ssl is not None
        incoming, read = self._incoming, self._ssl.read
        incoming.write(data)
        records: list[bytes] = []
        try:
            while record := read(RECORD_BYTES):
                if not (incoming.pending or records):  # the usual case
                    return record
                records.append(record)
            self._ended = True  # close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._ended = True
            self._fault = _Fault(explain(error, self.server_name), rejects_certificate(error))
        return b"".join(records) or None

    def _answer(self) -> None:
        """Send output of OpenSSL itself, such as an alert or the answer to a key update."""
        if self._outgoing.pending:
            self._pending = memoryview(bytes(self._pending) + self._outgoing.read())
        with suppress(TransportClosedError):  # recv() reports it, after the received data
            self._push()

    def _tell_end(self) -> bytes:
        if self._last_words:
            last_words, self._last_words = self._last_words, b""
            return last_words
        if self._fault:
            raise self._closed()
        return b""

    def _closed(self) -> TransportClosedError:
        """Return the error for a stream that has ended."""
        fault = self._fault or _Fault("closed by the peer", False)
        by_peer = None if self._fault else "closed"
        error = TransportClosedError.ended(f"{self.description}: {fault.text}", by_peer)
        if fault.is_rejection:
            error.retry = TlsError.retry  # as in TLS 1.2, whose handshake would have failed
        return error

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypt and pass on; see :meth:`Transport.send`.

        Bytes count as taken when all of their ciphertext has been taken below. Until then the caller still
        holds those bytes and offers them again first; they are skipped, not encrypted again.
        """
        if self._ssl is None:
            raise TransportClosedError(f"{self.description} is not open")
        if self._ended:
            raise self._closed()
        if self._pending and not self._push():
            return 0
        taken = min(self._owed, len(data))
        self._owed -= taken
        view = memoryview(data)
        while taken < len(view):
            try:
                count = self._ssl.write(view[taken : taken + self._piece])
            except ssl.SSLWantReadError:  # continues after the next recv()
                break
            except ssl.SSLError as error:
                problem = explain(error, self.server_name)
                raise TransportClosedError(f"{self.description}: {problem}") from error
            ciphertext = self._outgoing.read()
            sent = self._send_below(ciphertext)
            if sent < len(ciphertext):
                self._pending = memoryview(ciphertext)[sent:]
                self._owed = count
                self._piece = max(self._piece // 2, PIECE_BYTES.start)
                break
            taken += count
            self._piece = min(self._piece * 2, PIECE_BYTES.stop - 1)
        return taken

    def flush(self) -> None:
        """Flush the stream below, and give it the rest of a record."""
        self.inner.flush()
        if self._pending:
            self._push()

    def _push(self) -> bool:
        """Pass on ciphertext; return whether all of it has gone."""
        self._pending = self._pending[self._send_below(self._pending) :]
        return not self._pending

    def _send_below(self, ciphertext: bytes | memoryview) -> int:
        try:
            return self.inner.send(ciphertext)
        except TransportClosedError as error:
            # A server that rejects our certificate sends an alert and closes, perhaps before our CONNECT.
            self._hear_last_words()
            if self._fault:
                raise self._closed() from error
            raise

    def _hear_last_words(self) -> None:
        """Read the data that the peer sent before it closed."""
        with suppress(TransportClosedError):
            while not self._ended and (data := self._recv_below()):
                self._last_words += self._decrypt(data) or b""
        self._ended = self._ended or bool(self._last_words)
