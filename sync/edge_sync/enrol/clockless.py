"""TLS that does not ask what time it is: a node whose clock says 1970 must be able to join, an expired one to return.

Who is believed is said by signatures; until when is looked at by whoever has a clock worth it.
"""

import ssl

NO_CHECK_TIME = ssl.VerifyFlags(0x20_0000)
"""Source: OpenSSL, X509_VERIFY_PARAM_set_flags(3), X509_V_FLAG_NO_CHECK_TIME; Python gives it no name."""


def leave_time_out(context: ssl.SSLContext) -> None:
    """Make `context` verify certificates in all but their dates."""
    context.verify_flags |= NO_CHECK_TIME
