"""Why a connection failed, in words that are the same wherever one is made."""

import os
import socket
import ssl

OTHER_CA = "is it of the CA that is trusted here, and for this name?"
NO_TLS = "does it speak TLS at this port?"


def cause_of(error: BaseException, longest_s: float | None = None) -> str:
    """Say in words why a connection failed, for people: the cause, and where to look.

    `longest_s` is how long was waited, if only so long.
    The texts of libraries name addresses twice, numbers of errors, and Python's own objects.
    """
    # aiohttp wraps what happened in errors of its own, whose texts show objects.
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    if isinstance(inner, BaseException):
        return cause_of(inner)
    match error:
        case ssl.SSLCertVerificationError():
            what = error.verify_message.rstrip(".")
            cause = f"its certificate is not accepted: {what} ({OTHER_CA})"
        case ssl.SSLError():
            words = (error.reason or "unknown").replace("_", " ").lower()
            cause = f"TLS failed: {words} ({NO_TLS})"
        case socket.gaierror():
            words = (error.strerror or "unknown").lower()
            cause = f"the name is not resolved: {words} (is it right, and does DNS answer?)"
        case TimeoutError():
            time = "time" if longest_s is None else f"{longest_s:g} s"
            cause = f"no answer in {time} (is it up, and does a firewall or policy let us through?)"
        case ConnectionRefusedError():
            cause = "connection refused (does it run, and listen there?)"
        case OSError(errno=int(number)):
            cause = os.strerror(number).lower()
        case _:
            text = " ".join(str(error).split())
            cause = text if text and " object at 0x" not in text else type(error).__name__
    return cause
