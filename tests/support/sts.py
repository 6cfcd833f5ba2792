"""A token service of the tests' own: STS's protocol, with lifetimes and faults that moto lacks.

    sts.lifetime_seconds = 6      of the credentials that are given from now on
    sts.fault = "hang"            "refuse" (AccessDenied), "404", "412", "500", "501", "503",
                                  "throttle", "token", "hang", "reset"
    sts.web_fault = "refuse"      the same for AssumeRoleWithWebIdentity alone
    sts.delay_seconds = 4         before each answer
    sts.most_at_once              calls that were being answered at a time

Each call gives other keys, so that a request tells whose it was: ``ASIATEST<n>…``.
"""

import socket
import struct
import threading
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from tests.support.threads import Service, ServiceHandler

_ERRORS = {
    "refuse": (403, "AccessDenied", "User: me is not authorized to perform: sts:AssumeRole"),
    "500": (500, "InternalFailure", "We are sorry."),
    "501": (501, "NotImplemented", "Not Implemented"),
    "404": (404, "NotFound", "Not Found"),
    "412": (412, "PreconditionFailed", "Precondition Failed"),
    "503": (503, "ServiceUnavailable", "Service Unavailable"),
    "token": (400, "InvalidIdentityToken", "No OpenIDConnect provider found in your account"),
    "throttle": (400, "Throttling", "Rate exceeded"),
}

_ANSWER = """\
<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>token-{key}</SessionToken><Expiration>{end}</Expiration></Credentials>
<AssumedRoleUser><AssumedRoleId>AROATEST:{session}</AssumedRoleId>
<Arn>arn:aws:sts::123456789012:assumed-role/test/{session}</Arn></AssumedRoleUser>
</AssumeRoleResult><ResponseMetadata><RequestId>0</RequestId></ResponseMetadata>
</AssumeRoleResponse>"""

_ERROR = """\
<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>{code}</Code><Message>{message}</Message></Error><RequestId>0</RequestId></ErrorResponse>"""


class Sts(Service):
    """The service, in threads of the test's process."""

    def __init__(self) -> None:
        self.lifetime_seconds = 3600.0
        self.at_once = self.most_at_once = 0
        self.web_fault = ""
        self.calls: list[dict[str, str]] = []  # the parameters of each
        self.given: list[str] = []  # access keys, in order
        self.lock = threading.Lock()
        super().__init__(_Handler)

    def heal(self) -> None:
        self.web_fault = ""
        super().heal()


class _Handler(ServiceHandler):
    def do_POST(self) -> None:  # noqa: N802 - what the library calls
        sts = self.server.service
        with sts.lock:
            sts.at_once += 1
            sts.most_at_once = max(sts.most_at_once, sts.at_once)
        try:
            self._serve(sts)
        finally:
            with sts.lock:
                sts.at_once -= 1

    def _serve(self, sts: Sts) -> None:
        asked = {k: v[0] for k, v in parse_qs(self._body().decode()).items()}
        # of KEY/DATE/REGION/SERVICE/aws4_request
        scope = self.headers.get("Authorization", "").partition("Credential=")[2].split("/")
        release = sts.release
        with sts.lock:
            sts.calls.append(asked | {"region": scope[2] if len(scope) > 2 else ""})
            is_web = asked["Action"] == "AssumeRoleWithWebIdentity"
            fault = sts.web_fault if is_web else sts.fault
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)  # closing now sends a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            return
        sts.wait(fault, release)
        if fault in _ERRORS:
            status, code, message = _ERRORS[fault]
            self.answer(status, _ERROR.format(code=code, message=message), "text/xml")
            return
        end = datetime.now(UTC) + timedelta(seconds=sts.lifetime_seconds)
        with sts.lock:
            key = f"ASIATEST{len(sts.given) + 1:012}"
            sts.given.append(key)
        text = _ANSWER.format(
            key=key, end=f"{end:%Y-%m-%dT%H:%M:%S.%f}Z", session=asked["RoleSessionName"]
        )
        self.answer(200, text.replace("AssumeRole", asked["Action"]), "text/xml")

    def do_GET(self) -> None:  # noqa: N802
        """Answer as a container's endpoint for credentials that is out of order."""
        self.answer(503, "out of order")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))
