"""The receiving side of one session: bytes in, columns and events out.

Over UDP a message is whole in its datagram (RFC 7011 section 10.3.4), so all that have come are a
piece of a stream once each has been looked at. What differs is what the network may do: messages
come late or never (`Reordering`), and templates live as long as they are sent again (section 8.4).
"""

from collections.abc import Callable, Iterable, Iterator

from flowvis.errors import LimitExceeded, MalformedMessage, MalformedSet, PeerError, Where
from flowvis.ipfix.acknowledgement import read_sent_again, says_sent_again
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.events import (
    Event,
    Fruitless,
    Malformed,
    NotUnderstood,
    SequenceGap,
    TemplateLearned,
    TemplateWithdrawn,
)
from flowvis.ipfix.exporter_report import ExporterReport, is_report, read_report
from flowvis.ipfix.limits import CollectorLimits
from flowvis.ipfix.occupancy import Occupant, is_occupancy, read_occupancy
from flowvis.ipfix.order import LATE_S, Reordering
from flowvis.ipfix.stats import CollectorStats
from flowvis.ipfix.template import (
    OPTIONS_TEMPLATE_SET,
    TEMPLATE_SET,
    BrokenTemplate,
    Found,
    LongTemplate,
    Template,
    read_templates,
)
from flowvis.native import RecordDecoder
from flowvis.native.contract.ipfix import FIRST_DATA_SET, HEADER, SET, VERSION, Buffer, Stop

__all__ = ["CollectorSession", "CollectorStats"]

UNBOUNDED = 1 << 62  # work for a call that does all there is to do

EVENT_WORK = 10  # what a stop of the leaf costs, such as for a gap, a bad set or a withdrawal
TEMPLATE_WORK = (60, 2)  # what a template costs to learn, and each of its fields
COMPILE_WORK = (60, 4)  # what it costs beside that if no session had the like
"""Work in microseconds of CPU, roughly."""

TEMPLATE_BYTES = (500, 24, 40)
"""What a template takes in memory, about, beside its fields and the steps of its program: what each
of these does."""

DOMAIN_BYTES = (90, 300)
"""What it takes, about, to remember one thing of an observation domain, and over UDP its order."""

FRUITLESS_WORK = 100_000  # between two records: more than 256 templates of flows cost

OTHER_BEGINNINGS = {
    5: "NetFlow 5",
    9: "NetFlow 9",
    int.from_bytes(b"PR"): "HTTP/2 in plain text, as gRPC does",
    int.from_bytes(b"GE"): "HTTP",
    int.from_bytes(b"PO"): "HTTP",
    0x1603: "TLS where there is none: set aggregatorTransportProtocol: TLS, or tcp there",
}
"""What the first two bytes of other protocols say, in place of the version."""


class CollectorSession:
    """Decode what one exporter sends into a buffer. Does no I/O.

    `name` is the peer's name in errors. `exporter` gives the number that records of an observation
    domain have in the column `DOMAIN`; by default it is the domain. With `datagrams` it is fed by
    `receive_datagrams`, and `settle` has to be called every few seconds. Only where it is
    `acknowledged` what is durable the peer may be an exporter of ours, whose options say something.
    """

    def __init__(
        self,
        name: str,
        buffer: RecordBuffer,
        limits: CollectorLimits = CollectorLimits(),  # noqa: B008 - frozen
        exporter: Callable[[int], int] | None = None,
        *,
        datagrams: bool = False,
        acknowledged: bool = True,
    ) -> None:
        self.name = name
        self.now_s = 0.0
        """Steady time, over UDP: of what comes from now on."""
        self.template_bytes = 0
        """About what its templates take in memory, and what is remembered of its domains."""
        self.stats = CollectorStats()
        self._buffer = buffer
        self._limits = limits
        self._exporter = exporter
        self._decoder: RecordDecoder = RecordDecoder(limits.message_size, limits.text_size)
        self._templates: dict[tuple[int, int], Template] = {}
        self._acknowledged = acknowledged
        self._bytes_of: dict[tuple[int, int], int] = {}
        self._domain_bytes = 0
        self._order = Reordering() if datagrams else None
        self._sent_s: dict[tuple[int, int], float] = {}  # over UDP: when a template came last
        self._tail = bytearray()
        self._reading: Iterator[Found] | None = None  # templates of the set that is being read
        self._left = 0
        self._wasted = 0  # work since the last record
        self._events: list[Event] = []
        self._complained = False
        self._sent_again_until = 0  # of the session's records
        self.report: ExporterReport | None = None
        """What an exporter of ours said last of itself."""
        self.occupancy: tuple[Occupant, ...] | None = None
        """Who fills its node's table of connections, as it said last."""
        self.pending = False
        """Whether work was left for `go_on`."""

    def receive(self, data: bytes | memoryview, work: int = UNBOUNDED) -> list[Event]:
        """Decode all messages that are complete now; keep the rest.

        It stops before when it has done so much work (microseconds, by estimation) or the buffer is
        full: then it is `pending`, has a copy of what is left, and `go_on` goes on. Raises
        MalformedMessage or LimitExceeded when framing is lost: the session must end. What was
        decoded before stays in the buffer.
        """
        self._events = []
        self.stats.octets += len(data)
        self._advance(data, work)
        return self._events

    def receive_datagrams(self, datagrams: Iterable[bytes], work: int = UNBOUNDED) -> list[Event]:
        """Decode datagrams in the order in which they came; as `receive`.

        One that is not made of whole messages is left out, and a fault.
        """
        faults: list[PeerError] = []
        whole = []
        for data in datagrams:
            fault = self._fault_of_datagram(data)
            if fault is None:
                whole.append(data)
            else:
                faults.append(fault)
        self.receive(b"".join(whole), work)
        for fault in faults:
            self._malformed(fault)
        return self._events

    def settle(self, life_s: float, *, patience_s: float = LATE_S) -> list[Event]:
        """Over UDP: see what has not come until `now_s`, and which templates have lived so long.

        With a patience of 0 seconds nothing is waited for any more.
        """
        self._events = []
        if self._order is not None and self._order.waiting:
            for domain, lost in self._order.settle(self.now_s, patience_s).items():
                self.stats.gaps += 1
                self.stats.lost_records += lost
                self._report(SequenceGap(domain, lost))
        for key in [key for key, sent_s in self._sent_s.items() if self.now_s - sent_s > life_s]:
            self.stats.templates_expired += 1
            self._forget(key)
        return self._events

    def go_on(self, work: int = UNBOUNDED) -> list[Event]:
        """Decode more of what is pending; as `receive`."""
        self._events = []
        self._advance(b"", work)
        return self._events

    @property
    def fruitless(self) -> bool:
        """Whether the peer only makes work: it has sent no records for long."""
        return self._wasted > FRUITLESS_WORK

    @property
    def repeating(self) -> bool:
        """Whether the next records may have been received before, as the exporter says."""
        return self.stats.records < self._sent_again_until

    @property
    def export_ms(self) -> int:
        """When the last message was exported, by its header, in whole seconds; 0: none came."""
        return self._decoder.export_ms

    def _advance(self, data: bytes | memoryview, work: int) -> None:
        self._left = work
        before = self.stats.records
        tail, decoder = self._tail, self._decoder
        data = memoryview(data)
        try:
            if self.pending:
                tail += data
                self._decode_tail()
            else:
                while tail and data and not self.pending:  # a message that came in pieces
                    lacking = decoder.needed - len(tail)
                    tail += data[:lacking]
                    data = data[lacking:]
                    if len(tail) >= decoder.needed:
                        self._decode_tail()
                if tail:
                    tail += data
                elif len(data):
                    self.pending = not self._decode(data)
                    # The decoder goes on at its place in the same bytes.
                    tail += data if self.pending else data[decoder.rewind() :]
            if not self.pending and len(tail) > self._limits.pending_bytes:
                raise self._over("pending-bytes", len(tail), self._limits.pending_bytes)
        finally:
            self._count()
            self._judge(work - self._left, self.stats.records - before)

    def _decode_tail(self) -> None:
        self.pending = not self._decode(self._tail)
        if not self.pending:
            del self._tail[: self._decoder.rewind()]

    def _judge(self, work: int, records: int) -> None:
        """Note what came of some work."""
        if records:
            self._wasted = 0
            return
        noted = self.fruitless
        self._wasted += work
        if self.fruitless and not noted and not self.stats.fruitless:
            self.stats.fruitless = 1
            stats = self.stats
            learned = stats.templates + stats.templates_changed + stats.templates_withdrawn
            self._report(Fruitless(learned, stats.malformed.total() + stats.gaps))

    @property
    def waiting_bytes(self) -> int:
        """Bytes held: of a message that is not complete yet, or of what is pending."""
        return len(self._tail)

    def eof(self) -> None:
        """The peer closed: MalformedMessage if that was inside a message."""
        if self._tail:
            raise MalformedMessage(
                "truncated",
                f"the stream ends {len(self._tail)} bytes into a message "
                f"of {self._decoder.needed} or more",
                Where(self.name),
            )

    def _decode(self, data: Buffer) -> bool:
        """Decode what is complete; False if there was too much work in it, or no room."""
        decoder, buffer = self._decoder, self._buffer
        if self._reading is not None and not self._take(self._reading):
            return False
        while (stop := decoder.run(data, buffer.target)) is not Stop.END:
            match stop:
                case Stop.FULL:
                    if buffer.full:
                        return False
                    buffer.grow()
                case Stop.SET:
                    self._read_set(data)
                case Stop.GAP:
                    self._note_gap(data)
                case Stop.BAD_MESSAGE:
                    raise self._bad_message(data)
                case _:
                    self._malformed(self._bad_content(stop))
            self._left -= EVENT_WORK
            if self._left <= 0:
                return False
        return True

    def _note_gap(self, data: Buffer) -> None:
        decoder = self._decoder
        if self._order is not None:
            sequence = HEADER.unpack_from(data, decoder.message_start)[3]
            due = (sequence - decoder.lost) & 0xFFFFFFFF
            self._order.jump(decoder.domain, due, sequence, self.now_s)
            self.stats.late_records = self._order.late
            return
        self.stats.gaps += 1
        self.stats.lost_records += max(decoder.lost, 0)
        self._report(SequenceGap(decoder.domain, decoder.lost))

    def _read_set(self, data: Buffer) -> None:
        """Read a set that the leaf does not know."""
        decoder = self._decoder
        template = self._templates.get((decoder.domain, decoder.set_id))
        if template is not None and self._is_of_ours(template):
            self._read_options(template, bytes(data[decoder.place + SET.size : decoder.set_end]))
        elif decoder.set_id >= FIRST_DATA_SET:
            self.stats.sets_without_template += 1
            self._malformed(self._fault("no-template", "data of a template that never came"))
        elif decoder.set_id in {TEMPLATE_SET, OPTIONS_TEMPLATE_SET}:
            body = bytes(data[decoder.place + SET.size : decoder.set_end])
            self._take(read_templates(body, decoder.set_id, self._limits.template_fields))
        else:
            self._malformed(self._fault("set-id", "a set id that no version of IPFIX has"))

    def _read_options(self, template: Template, body: bytes) -> None:
        """Read what an exporter of ours says."""
        decoder = self._decoder
        try:
            if is_report(template):
                self.report = read_report(body, decoder.domain)
                return
            if is_occupancy(template):
                self._left -= EVENT_WORK
                self.occupancy = read_occupancy(body, decoder.domain)
                return
            count = read_sent_again(body, decoder.domain)
        except MalformedSet as error:
            self._malformed(self._fault(error.reason, error.detail))
            return
        self.stats.sent_again += count
        self._sent_again_until = decoder.records + count

    def _take(self, templates: Iterator[Found]) -> bool:
        """Take templates of a set in; False if that was too much work for now."""
        self._reading = templates
        while self._left > 0:
            try:
                template = next(templates, None)
            except MalformedSet as error:
                self._malformed(self._fault(error.reason, error.detail))
                template = None
            if template is None:
                self._reading = None
                return True
            self._left -= EVENT_WORK
            try:
                self._take_one(template)
            except PeerError as error:
                self._malformed(error)
                self._let_go(template)
        return False

    def _let_go(self, refused: Found) -> None:
        """Forget what the id of a refused template meant: data are of the refused one now."""
        key = (self._decoder.domain, refused.id)
        withdraws = isinstance(refused, Template) and not refused.specifiers
        if not withdraws and key in self._templates:
            self._forget(key)

    def _take_one(self, template: Found) -> None:
        if isinstance(template, BrokenTemplate):
            self._let_go(template)
        elif isinstance(template, LongTemplate):
            self._left -= template.fields // 4
            most = self._limits.template_fields
            raise self._over("template-fields", template.fields, most)
        elif template.specifiers:
            self._learn(template)
        else:
            self._withdraw(template.id)

    def _learn(self, template: Template) -> None:
        """Take a template in (RFC 7011 section 8.1)."""
        key = (self._decoder.domain, template.id)
        known = self._templates.get(key)
        if known == template:
            self._note_sent(key)
            self.stats.templates_repeated += 1
            self._left -= len(template.specifiers)
            self._wasted -= 2 * EVENT_WORK + len(template.specifiers)  # some repeat theirs for ever
            return
        self._pay(TEMPLATE_WORK, template)
        limits = self._limits
        if known is None and len(self._templates) >= limits.templates:
            raise self._over("templates", len(self._templates) + 1, limits.templates)
        if template.minimum_length == 0:
            raise self._fault("empty-records", f"template {template.id}: records of no bytes")
        if self._is_of_ours(template):  # read here: a session has few such records
            if known is not None and not self._is_of_ours(known):
                self._decoder.forget(*key)
            self._note_learned(key, template, known, 0)
            return
        domain = self._decoder.domain
        number = domain if self._exporter is None else self._exporter(domain)
        plan = self._buffer.plans.find(template)
        if plan is None:
            plan = self._buffer.plans.compile(template)
            self._pay(COMPILE_WORK, template)
        self._decoder.learn(*key, plan.program_of(number))
        self.stats.unknown_fields += plan.unknown
        self.stats.unusable_fields += plan.unusable
        self.stats.incomplete_templates += bool(plan.missing)
        self._note_learned(key, template, known, len(plan.program), plan.unknown)
        if not self._complained and (plan.unknown or plan.missing):
            self._complained = True
            self._report(NotUnderstood(*key, plan.elements, plan.missing))

    def _note_learned(
        self,
        key: tuple[int, int],
        template: Template,
        known: Template | None,
        steps: int,
        unknown: int = 0,
    ) -> None:
        itself, of_field, of_step = TEMPLATE_BYTES
        size = itself + of_field * len(template.specifiers) + of_step * steps
        self.template_bytes += size - self._bytes_of.get(key, 0)
        self._templates[key], self._bytes_of[key] = template, size
        self._note_sent(key)
        self.stats.templates += known is None
        self.stats.templates_changed += known is not None
        self._report(TemplateLearned(*key, len(template.specifiers), unknown))

    def _note_sent(self, key: tuple[int, int]) -> None:
        if self._order is not None:
            self._sent_s[key] = self.now_s

    def _pay(self, price: tuple[int, int], template: Template) -> None:
        self._left -= price[0] + price[1] * len(template.specifiers)

    def _withdraw(self, template_id: int) -> None:
        """Forget one template, or all of a kind where the id is that of the set."""
        domain = self._decoder.domain
        if self._order is not None:
            raise self._fault("udp-withdrawal", "a withdrawal of templates, which UDP has not")
        if template_id >= FIRST_DATA_SET:
            if (domain, template_id) not in self._templates:
                raise self._fault("unknown-withdrawal", f"no template {template_id} to withdraw")
            keys = [(domain, template_id)]
        else:
            options = template_id == OPTIONS_TEMPLATE_SET
            keys = [
                key
                for key, template in self._templates.items()
                if key[0] == domain and bool(template.scope_count) == options
            ]
        for key in keys:
            self.stats.templates_withdrawn += 1
            self._forget(key)

    def _forget(self, key: tuple[int, int]) -> None:
        template = self._templates.pop(key)
        self.template_bytes -= self._bytes_of.pop(key)
        self._sent_s.pop(key, None)
        if not self._is_of_ours(template):
            self._decoder.forget(*key)
        self._report(TemplateWithdrawn(*key))

    def _is_of_ours(self, template: Template) -> bool:
        """Whether a template is of the options that only exporters of ours send."""
        if not self._acknowledged:
            return False
        return says_sent_again(template) or is_report(template) or is_occupancy(template)

    def _report(self, event: Event) -> None:
        if len(self._events) < self._limits.events:
            self._events.append(event)

    def _malformed(self, error: PeerError) -> None:
        self.stats.malformed[error.reason] += 1
        self._report(Malformed(error))

    def _where(self) -> Where:
        decoder = self._decoder
        offset = decoder.place - decoder.message_start
        return Where(self.name, decoder.domain, decoder.set_id, offset)

    def _fault(self, reason: str, detail: str) -> MalformedSet:
        return MalformedSet(reason, detail, self._where())

    def _over(self, limit: str, value: int, allowed: int) -> LimitExceeded:
        return LimitExceeded(limit, f"{limit}: {value}, at most {allowed}", self._where())

    def _bad_content(self, stop: Stop) -> MalformedSet:
        if stop is Stop.BAD_RECORD:
            return self._fault("record-length", "a record ends outside its set")
        return self._fault("set-length", "a set ends outside its message")

    def _bad_message(self, data: Buffer) -> PeerError:
        version, length, *_ = HEADER.unpack_from(data, self._decoder.place)
        where = Where(self.name)
        if version != VERSION:
            reason, detail = "version", _other_version(version)
        elif length < HEADER.size:
            reason, detail = "message-length", f"a message of {length} bytes, header included"
        else:
            limit = self._limits.message_size
            self.stats.malformed["message-size"] += 1
            return LimitExceeded("message-size", f"{length} bytes, at most {limit}", where)
        self.stats.malformed[reason] += 1
        return MalformedMessage(reason, detail, where)

    def _fault_of_datagram(self, data: bytes) -> PeerError | None:
        """What is wrong with a datagram, if it is not made of whole messages."""
        at, where = 0, Where(self.name)
        while len(data) - at >= HEADER.size:
            version, length, *_ = HEADER.unpack_from(data, at)
            if version != VERSION:
                return MalformedMessage("version", _other_version(version), where)
            if length < HEADER.size or length > len(data) - at:
                detail = f"a message of {length} bytes in a datagram of {len(data)}"
                return MalformedMessage("message-length", detail, where)
            at += length
        if at == len(data) > 0:
            return None
        if not at and len(data) >= 2 and (version := int.from_bytes(data[:2])) != VERSION:
            return MalformedMessage("version", _other_version(version), where)
        return MalformedMessage("message-length", f"a datagram of {len(data)} bytes", where)

    def _count(self) -> None:
        decoder, stats = self._decoder, self.stats
        stats.messages = decoder.messages
        stats.records = decoder.records
        stats.ignored_records = decoder.ignored
        stats.truncated_texts = decoder.truncated
        stats.refused_texts = decoder.refused
        of_one, of_order = DOMAIN_BYTES
        domain_bytes = of_one * decoder.domains
        if self._order is not None:
            domain_bytes += of_order * len(self._order)
        self.template_bytes += domain_bytes - self._domain_bytes
        self._domain_bytes = domain_bytes


def _other_version(version: int) -> str:
    if version in OTHER_BEGINNINGS:
        return f"the peer speaks {OTHER_BEGINNINGS[version]}, and this port takes IPFIX"
    return f"message version {version}: need {VERSION} (IPFIX)"
