"""The receiving side of one session: a byte stream in, columns and events out."""

from collections.abc import Callable, Iterable

from flowvis.errors import LimitExceeded, MalformedMessage, MalformedSet, PeerError, Where
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.events import (
    Event,
    Malformed,
    NotUnderstood,
    SequenceGap,
    TemplateLearned,
    TemplateWithdrawn,
)
from flowvis.ipfix.limits import CollectorLimits
from flowvis.ipfix.plan import decode_plan
from flowvis.ipfix.stats import CollectorStats
from flowvis.ipfix.template import (
    OPTIONS_TEMPLATE_SET,
    TEMPLATE_SET,
    Template,
    read_templates,
)
from flowvis.native import RecordDecoder
from flowvis.native.contract.ipfix import FIRST_DATA_SET, HEADER, SET, VERSION, Buffer, Stop

__all__ = ["CollectorSession", "CollectorStats"]

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
    """Decode one exporter's byte stream into a buffer. Does no I/O.

    `name` is the peer's name in errors. `exporter` gives the number that records of an observation
    domain have in the column `DOMAIN`; by default it is the domain.
    """

    def __init__(
        self,
        name: str,
        buffer: RecordBuffer,
        limits: CollectorLimits = CollectorLimits(),  # noqa: B008 - frozen
        exporter: Callable[[int], int] | None = None,
    ) -> None:
        self.name = name
        self.stats = CollectorStats()
        self._buffer = buffer
        self._limits = limits
        self._exporter = exporter
        self._decoder: RecordDecoder = RecordDecoder(limits.message_size, limits.text_size)
        self._templates: dict[tuple[int, int], Template] = {}
        self._tail = bytearray()
        self._events: list[Event] = []
        self._complained = False

    def receive(self, data: bytes | memoryview) -> list[Event]:
        """Decode all messages that are complete now; keep the rest.

        Raises MalformedMessage or LimitExceeded when framing is lost: the session must end. What
        was decoded before stays in the buffer.
        """
        self._events = []
        self.stats.octets += len(data)
        try:
            if self._tail:
                self._tail += data
                if len(self._tail) >= self._decoder.needed:
                    del self._tail[: self._decode(self._tail)]
            else:
                self._tail += data[self._decode(data) :]
            if len(self._tail) > self._limits.pending_bytes:
                raise self._over("pending-bytes", len(self._tail), self._limits.pending_bytes)
        finally:
            self._count()
        return self._events

    @property
    def pending(self) -> int:
        """Bytes held of a message that is not complete yet."""
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

    def _decode(self, data: Buffer) -> int:
        """Decode what is complete; return how many bytes that was."""
        decoder, buffer = self._decoder, self._buffer
        while (stop := decoder.run(data, buffer.target)) is not Stop.END:
            match stop:
                case Stop.FULL:
                    buffer.grow()
                case Stop.SET:
                    self._read_set(data)
                case Stop.GAP:
                    self.stats.gaps += 1
                    self.stats.lost_records += max(decoder.lost, 0)
                    self._report(SequenceGap(decoder.domain, decoder.lost))
                case Stop.BAD_MESSAGE:
                    raise self._bad_message(data)
                case _:
                    self._malformed(self._bad_content(stop))
        return decoder.rewind()

    def _read_set(self, data: Buffer) -> None:
        """Read a set that the leaf does not know."""
        decoder = self._decoder
        if decoder.set_id >= FIRST_DATA_SET:
            self.stats.sets_without_template += 1
            self._malformed(self._fault("no-template", "data of a template that never came"))
        elif decoder.set_id in {TEMPLATE_SET, OPTIONS_TEMPLATE_SET}:
            body = bytes(data[decoder.place + SET.size : decoder.set_end])
            try:
                self._take(read_templates(body, decoder.set_id))
            except MalformedSet as error:
                self._malformed(self._fault(error.reason, error.detail))
        else:
            self._malformed(self._fault("set-id", "a set id that no version of IPFIX has"))

    def _take(self, templates: Iterable[Template]) -> None:
        for template in templates:
            try:
                if template.specifiers:
                    self._learn(template)
                else:
                    self._withdraw(template.id)
            except PeerError as error:
                self._malformed(error)

    def _learn(self, template: Template) -> None:
        """Take a template in (RFC 7011 section 8.1)."""
        key = (self._decoder.domain, template.id)
        known = self._templates.get(key)
        if known == template:
            self.stats.templates_repeated += 1
            return
        limits = self._limits
        if known is None and len(self._templates) >= limits.templates:
            raise self._over("templates", len(self._templates) + 1, limits.templates)
        if len(template.specifiers) > limits.template_fields:
            raise self._over("template-fields", len(template.specifiers), limits.template_fields)
        if template.minimum_length == 0:
            raise self._fault("empty-records", f"template {template.id}: records of no bytes")
        domain = self._decoder.domain
        number = domain if self._exporter is None else self._exporter(domain)
        plan = decode_plan(template, self._buffer.layout, number)
        self._decoder.learn(*key, plan.program)
        self._templates[key] = template
        self.stats.templates += known is None
        self.stats.templates_changed += known is not None
        self.stats.unknown_fields += plan.unknown
        self.stats.unusable_fields += plan.unusable
        self.stats.incomplete_templates += bool(plan.missing)
        self._report(TemplateLearned(*key, len(template.specifiers), plan.unknown))
        if not self._complained and (plan.unknown or plan.missing):
            self._complained = True
            self._report(NotUnderstood(*key, plan.elements, plan.missing))

    def _withdraw(self, template_id: int) -> None:
        """Forget one template, or all of a kind where the id is that of the set."""
        domain = self._decoder.domain
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
            del self._templates[key]
            self._decoder.forget(*key)
            self.stats.templates_withdrawn += 1
            self._report(TemplateWithdrawn(*key))

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
            reason, detail = "version", f"message version {version}: need {VERSION} (IPFIX)"
            if version in OTHER_BEGINNINGS:
                detail = f"the peer speaks {OTHER_BEGINNINGS[version]}, and this port takes IPFIX"
        elif length < HEADER.size:
            reason, detail = "message-length", f"a message of {length} bytes, header included"
        else:
            limit = self._limits.message_size
            self.stats.malformed["message-size"] += 1
            return LimitExceeded("message-size", f"{length} bytes, at most {limit}", where)
        self.stats.malformed[reason] += 1
        return MalformedMessage(reason, detail, where)

    def _count(self) -> None:
        decoder, stats = self._decoder, self.stats
        stats.messages = decoder.messages
        stats.records = decoder.records
        stats.ignored_records = decoder.ignored
        stats.truncated_texts = decoder.truncated
        stats.refused_texts = decoder.refused
