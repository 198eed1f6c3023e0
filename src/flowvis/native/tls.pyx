"""The compiled TLS leaf: the plaintext of many TLS records in one call of OpenSSL's.

It links with nothing: `flowvis.transport.plaintext` finds the functions in the OpenSSL that the
interpreter has loaded, and has the same in plain Python (`SessionReader`).
"""

from libc.stdint cimport int64_t, uint8_t, uintptr_t

cdef enum:
    # of SSL_get_error, openssl/ssl.h
    WANT_READ = 2
    ZERO_RETURN = 6

ctypedef int (*ReadFunction)(void *session, void *data, size_t size, size_t *count) noexcept
ctypedef int (*ErrorFunction)(const void *session, int outcome) noexcept
ctypedef void (*ClearFunction)() noexcept
ctypedef unsigned long (*LastErrorFunction)() noexcept
ctypedef const char *(*ReasonFunction)(unsigned long error) noexcept


cdef class OpenSsl:
    """The functions that are called, by their addresses."""

    cdef ReadFunction read
    cdef ErrorFunction error
    cdef ClearFunction clear
    cdef LastErrorFunction last_error
    cdef ReasonFunction reason

    def __init__(self, *addresses):
        cdef uintptr_t read, error, clear, last_error, reason
        read, error, clear, last_error, reason = addresses
        if not (read and error and clear and last_error and reason):
            raise ValueError("a function of OpenSSL has no address")
        self.read = <ReadFunction>read
        self.error = <ErrorFunction>error
        self.clear = <ClearFunction>clear
        self.last_error = <LastErrorFunction>last_error
        self.reason = <ReasonFunction>reason


cdef class LibraryReader:
    """Reads from one session, an `SSL *`, of which `owner` keeps the memory."""

    cdef readonly bint ended
    cdef readonly str fault
    cdef OpenSsl functions
    cdef object owner
    cdef void *session

    def __init__(self, OpenSsl functions not None, owner, uintptr_t session):
        if not session:
            raise ValueError("no session")
        self.functions = functions
        self.owner = owner
        self.session = <void *>session
        self.fault = ""

    def read(self, uint8_t[::1] into not None, int64_t filled):
        """Decrypt all that is whole, from `filled` on; return how much of `into` is filled then."""
        cdef OpenSsl functions = self.functions
        cdef int64_t size = into.shape[0]
        cdef size_t count = 0
        cdef int outcome, error
        if filled < 0:
            raise ValueError(f"{filled} bytes are filled")
        functions.clear()  # what SSL_get_error says is of this thread's queue
        while filled < size and not self.ended:
            outcome = functions.read(self.session, &into[filled], <size_t>(size - filled), &count)
            if outcome == 1:
                filled += <int64_t>count
                continue
            error = functions.error(self.session, outcome)
            if error == WANT_READ:
                break
            self.ended = True
            if error != ZERO_RETURN:
                self.fault = self.last_fault()
        functions.clear()
        return filled

    cdef str last_fault(self):
        cdef const char *reason = self.functions.reason(self.functions.last_error())
        return "unknown" if reason == NULL else reason.decode("ascii", "replace").lower()
