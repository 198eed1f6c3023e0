"""The compiled reader of Open vSwitch's list of connections: one pass over the text.

Reference and contract: `flowvis.native.reference.dpctl.LineDecoder`.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from flowvis.native.conntrack cimport Entry, EntryDecoder

from flowvis.native.contract.dpctl import (
    ENDPOINT_STATES,
    LAST_YEAR,
    MAX_LINE,
    PROTOCOLS,
    STATUS,
    TCP_STATE,
)

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char *text, void *into)


cdef enum:
    DUMP = 0
    NO_TCP_STATE = 255
    NO_STATE = 255
    TCP = 6
    WORD = 15  # bytes of the longest word of the contract, at most
    WORDS = 16
    ADDRESS = 45  # bytes of the longest address (INET6_ADDRSTRLEN less its end)
    MALFORMED = -1
    # Where a pair is.
    TOP = 0
    ORIG = 1
    REPLY = 2
    PROTOINFO = 3
    ELSEWHERE = 4
    # What has to be there, as bits.
    SOURCE = 1
    DESTINATION = 2
    REPLY_SOURCE = 4
    REPLY_DESTINATION = 8
    REQUIRED = 15
    COUNTED = 16


cdef struct Word:
    uint8_t text[WORD + 1]
    int64_t size
    uint32_t number


cdef struct Vocabulary:
    Word words[WORDS]
    int count


cdef struct Text:
    const uint8_t *at
    int64_t size


cdef Vocabulary protocols, statuses, states
cdef uint8_t tcp_state[WORDS][WORDS]
cdef int64_t max_line = MAX_LINE, last_year = LAST_YEAR
cdef uint8_t V4_MAPPED[12]
memset(V4_MAPPED, 0, 10)
memset(V4_MAPPED + 10, 0xFF, 2)


cdef int fill(Vocabulary *vocabulary, words) except -1:
    vocabulary.count = 0
    for name, number in words:
        text = name.encode()
        if len(text) > WORD or vocabulary.count == WORDS:
            raise ImportError(f"{name}: too long a word, or too many")
        memcpy(vocabulary.words[vocabulary.count].text, <const uint8_t *>text, len(text))
        vocabulary.words[vocabulary.count].size = len(text)
        vocabulary.words[vocabulary.count].number = number
        vocabulary.count += 1
    return 0


fill(&protocols, PROTOCOLS.items())
fill(&statuses, ((name, 1 << bit) for bit, name in enumerate(STATUS)))
fill(&states, ((name, number) for number, name in enumerate(ENDPOINT_STATES)))
for _source in range(len(ENDPOINT_STATES)):
    for _destination in range(len(ENDPOINT_STATES)):
        tcp_state[<int>_source][<int>_destination] = TCP_STATE[_source, _destination]


cdef inline bint same(Text text, const char *word, int64_t size) noexcept nogil:
    return text.size == size and memcmp(text.at, word, size) == 0


cdef inline int64_t look_up(Vocabulary *vocabulary, Text text) noexcept nogil:
    """The number of a word, or MALFORMED."""
    cdef int place
    cdef Word *word
    for place in range(vocabulary.count):
        word = &vocabulary.words[place]
        if word.size == text.size and memcmp(word.text, text.at, text.size) == 0:
            return word.number
    return MALFORMED


cdef inline int read_whole(Text text, uint64_t most, uint64_t *value) noexcept nogil:
    """A decimal number of at most 20 digits, up to `most`."""
    cdef uint64_t number = 0, digit
    cdef int64_t place
    if text.size < 1 or text.size > 20:
        return MALFORMED
    for place in range(text.size):
        digit = <uint64_t>text.at[place] - 48
        if digit > 9 or number > (most - digit) // 10:
            return MALFORMED
        number = number * 10 + digit
    value[0] = number
    return 0


cdef inline int read8(Text text, uint8_t *into) noexcept nogil:
    cdef uint64_t value
    if read_whole(text, 0xFF, &value):
        return MALFORMED
    into[0] = <uint8_t>value
    return 0


cdef inline int read16(Text text, uint16_t *into) noexcept nogil:
    cdef uint64_t value
    if read_whole(text, 0xFFFF, &value):
        return MALFORMED
    into[0] = <uint16_t>value
    return 0


cdef inline int read32(Text text, uint32_t *into) noexcept nogil:
    cdef uint64_t value
    if read_whole(text, 0xFFFFFFFF, &value):
        return MALFORMED
    into[0] = <uint32_t>value
    return 0


cdef inline int read64(Text text, uint64_t *into) noexcept nogil:
    return read_whole(text, 0xFFFFFFFFFFFFFFFF, into)


cdef inline int read_address(Text text, uint8_t *into) noexcept nogil:
    cdef char copy[ADDRESS + 1]
    if text.size < 1 or text.size > ADDRESS or memchr(text.at, 0, text.size) != NULL:
        return MALFORMED
    memcpy(copy, text.at, text.size)
    copy[text.size] = 0
    if memchr(text.at, 58, text.size) != NULL:  # a colon
        return 0 if inet_pton(10, copy, into) == 1 else MALFORMED
    memcpy(into, V4_MAPPED, 12)
    return 0 if inet_pton(2, copy, into + 12) == 1 else MALFORMED


cdef inline int hex_digit(uint8_t letter) noexcept nogil:
    if 48 <= letter <= 57:
        return letter - 48
    letter |= 0x20
    return letter - 87 if 97 <= letter <= 102 else MALFORMED


cdef inline int read_labels(Text text, uint8_t *labels) noexcept nogil:
    """A hexadecimal number; its lowest byte is the first."""
    cdef int64_t place
    cdef int digit
    if text.size < 3 or text.size > 34 or text.at[0] != 48 or text.at[1] != 120:  # 0x
        return MALFORMED
    memset(labels, 0, 16)
    for place in range(text.size - 2):
        digit = hex_digit(text.at[text.size - 1 - place])
        if digit < 0:
            return MALFORMED
        labels[place >> 1] |= <uint8_t>(digit << (4 * (place & 1)))
    return 0


cdef inline int read_digits(
    const uint8_t *at, int count, int64_t least, int64_t most, int64_t *into
) noexcept nogil:
    cdef int64_t number = 0
    cdef int place
    for place in range(count):
        if not 48 <= at[place] <= 57:
            return MALFORMED
        number = number * 10 + at[place] - 48
    into[0] = number
    return 0 if least <= number <= most else MALFORMED


cdef int read_time(Text text, uint64_t *into) noexcept nogil:
    """YYYY-MM-DDTHH:MM:SS with up to nine digits of a fraction, as of UTC, in nanoseconds."""
    cdef int64_t year, month, day, hour, minute, second, fraction = 0, days, era, of_era
    cdef int64_t place, length = 31
    cdef const uint8_t *at = text.at
    if text.size < 19 or text.size == 20 or text.size > 29:
        return MALFORMED
    if at[4] != 45 or at[7] != 45 or at[10] != 84 or at[13] != 58 or at[16] != 58:
        return MALFORMED
    if (
        read_digits(at, 4, 1970, last_year, &year)
        or read_digits(at + 5, 2, 1, 12, &month)
        or read_digits(at + 8, 2, 1, 31, &day)
        or read_digits(at + 11, 2, 0, 23, &hour)
        or read_digits(at + 14, 2, 0, 59, &minute)
        or read_digits(at + 17, 2, 0, 59, &second)
    ):
        return MALFORMED
    if month == 4 or month == 6 or month == 9 or month == 11:
        length = 30
    elif month == 2:
        length = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    if day > length:
        return MALFORMED
    if text.size > 19:
        if at[19] != 46:
            return MALFORMED
        if read_digits(at + 20, <int>(text.size - 20), 0, 999999999, &fraction):
            return MALFORMED
        for place in range(29 - text.size):
            fraction *= 10
    # Days since the epoch of a year that begins in March, so that a leap day is its last.
    if month <= 2:
        year -= 1
    era = year // 400
    of_era = (year - era * 400) * 365 + (year - era * 400) // 4 - (year - era * 400) // 100
    days = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    days += of_era + era * 146097 - 719468
    into[0] = <uint64_t>(((days * 24 + hour) * 60 + minute) * 60 + second) * 1000000000 + fraction
    return 0


cdef inline void read_status(Text text, uint32_t *status) noexcept nogil:
    """Words between bars; what is none of ours is left out."""
    cdef Text word
    cdef int64_t place, number
    word.at = text.at
    for place in range(text.size + 1):
        if place == text.size or text.at[place] == 124:  # |
            word.size = text.at + place - word.at
            number = look_up(&statuses, word)
            if number > 0:
                status[0] |= <uint32_t>number
            word.at = text.at + place + 1


cdef inline int place_of(Text key) noexcept nogil:
    if same(key, b"orig", 4):
        return ORIG
    if same(key, b"reply", 5):
        return REPLY
    if same(key, b"protoinfo", 9):
        return PROTOINFO
    return ELSEWHERE


cdef int read_orig(Text key, Text value, Entry *entry, int *found) noexcept nogil:
    if same(key, b"src", 3):
        found[0] |= SOURCE
        return read_address(value, entry.source)
    if same(key, b"dst", 3):
        found[0] |= DESTINATION
        return read_address(value, entry.destination)
    if same(key, b"sport", 5):
        return read16(value, &entry.source_port)
    if same(key, b"dport", 5):
        return read16(value, &entry.destination_port)
    if same(key, b"id", 2):
        return read16(value, &entry.icmp_id)
    if same(key, b"type", 4):
        return read8(value, &entry.icmp_type)
    if same(key, b"code", 4):
        return read8(value, &entry.icmp_code)
    if same(key, b"packets", 7):
        found[0] |= COUNTED
        return read64(value, &entry.packets)
    if same(key, b"bytes", 5):
        return read64(value, &entry.octets)
    return 0


cdef int read_reply(Text key, Text value, Entry *entry, int *found) noexcept nogil:
    if same(key, b"src", 3):
        found[0] |= REPLY_SOURCE
        return read_address(value, entry.reply_source)
    if same(key, b"dst", 3):
        found[0] |= REPLY_DESTINATION
        return read_address(value, entry.reply_destination)
    if same(key, b"sport", 5):
        return read16(value, &entry.reply_source_port)
    if same(key, b"dport", 5):
        return read16(value, &entry.reply_destination_port)
    if same(key, b"packets", 7):
        return read64(value, &entry.reverse_packets)
    if same(key, b"bytes", 5):
        return read64(value, &entry.reverse_octets)
    return 0


cdef int read_top(Text key, Text value, Entry *entry) noexcept nogil:
    if same(key, b"id", 2):
        return read32(value, &entry.id)
    if same(key, b"zone", 4):
        return read16(value, &entry.zone)
    if same(key, b"timeout", 7):
        return read32(value, &entry.timeout)
    if same(key, b"mark", 4):
        return read32(value, &entry.mark)
    if same(key, b"start", 5):
        return read_time(value, &entry.start_ns)
    if same(key, b"stop", 4):
        return read_time(value, &entry.stop_ns)
    if same(key, b"labels", 6):
        return read_labels(value, entry.labels)
    if same(key, b"status", 6):
        entry.status = 0
        read_status(value, &entry.status)
    return 0


cdef inline bint ends(uint8_t letter) noexcept nogil:
    return letter == 44 or letter == 40 or letter == 41  # , ( )


cdef int read_line(const uint8_t *at, const uint8_t *end, Entry *entry) noexcept nogil:
    """One connection; 0 if it has all that it must have."""
    cdef Text key, value
    cdef uint8_t source = NO_STATE, destination = NO_STATE, either = NO_STATE
    cdef int place = TOP, found = 0, bad
    cdef int64_t number
    if end - at > max_line:
        return MALFORMED
    memset(entry, 0, sizeof(Entry))
    entry.tcp_state = NO_TCP_STATE
    entry.event = DUMP
    key.at = at
    while at < end and at[0] != 44:
        at += 1
    key.size = at - key.at
    number = look_up(&protocols, key)
    if number >= 0:
        entry.protocol = <uint8_t>number
    elif read8(key, &entry.protocol):
        return MALFORMED
    while at < end:
        at += 1  # past what ended the pair before
        key.at = at
        while at < end and at[0] != 61 and not ends(at[0]):
            at += 1
        key.size = at - key.at
        value.at = NULL
        value.size = 0
        if at < end and at[0] == 61:
            at += 1
            value.at = at
            while at < end and not ends(at[0]):
                at += 1
            value.size = at - value.at
        if at < end and at[0] == 40:
            if place != TOP:
                return MALFORMED
            place = place_of(key)
            continue
        if key.size and value.at != NULL:
            bad = 0
            if place == TOP:
                bad = read_top(key, value, entry)
            elif place == ORIG:
                bad = read_orig(key, value, entry, &found)
            elif place == REPLY:
                bad = read_reply(key, value, entry, &found)
            elif place == PROTOINFO and key.size >= 5 and memcmp(key.at, b"state", 5) == 0:
                number = look_up(&states, value)
                if number >= 0:
                    if key.size == 5:
                        either = <uint8_t>number
                    elif same(key, b"state_orig", 10):
                        source = <uint8_t>number
                    elif same(key, b"state_reply", 11):
                        destination = <uint8_t>number
            if bad:
                return MALFORMED
        if at < end and at[0] == 41:
            place = TOP
    if place != TOP or found & REQUIRED != REQUIRED:
        return MALFORMED
    if entry.protocol == TCP and not (source == destination == either == NO_STATE):
        if either == NO_STATE:
            either = 0
        source = either if source == NO_STATE else source
        destination = either if destination == NO_STATE else destination
        entry.tcp_state = tcp_state[source][destination]
    entry.family = 2 if memcmp(entry.source, V4_MAPPED, 12) == 0 else 10
    entry.uncounted = not found & COUNTED
    return 0


cdef class LineDecoder(EntryDecoder):
    """The compiled decoder."""

    def feed_lines(self, const uint8_t[::1] data not None):
        if data.shape[0] == 0:
            return
        with nogil:
            self.read_lines(&data[0], &data[0] + data.shape[0])

    cdef int read_lines(self, const uint8_t *at, const uint8_t *end) except -1 nogil:
        cdef const uint8_t *stop
        while at < end:
            stop = <const uint8_t *>memchr(at, 10, end - at)
            if stop == NULL:
                stop = end
            if stop > at:
                if self.count == self.capacity:
                    self.grow()
                if read_line(at, stop, &self.entries[self.count]):
                    self.malformed += 1
                else:
                    self.count += 1
            at = stop + 1
        return 0
