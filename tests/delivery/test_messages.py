from aggregator.records import FIELDS, records
from flowvis.delivery.messages import all_but, encode_next
from flowvis.delivery.queue import Queue
from flowvis.ipfix.exporter import ExporterSession
from flowvis.runtime.dropped import ExportDropped
from flowvis.runtime.ledger import Stage

SMALL = 2000  # bytes of a message: some records in each


def begun(count: int) -> tuple[Queue, ExporterSession, list[bytes]]:
    """A session of which so many records are about to be sent."""
    queue = Queue(Stage("records"), 1000)
    queue.begin(acknowledged=True)
    queue.put(records(*({"sourceIP": "10.0.0.1"},) * count))
    session = ExporterSession(1, FIELDS, max_message=SMALL)
    return queue, session, encode_next(queue, session, 1, oversize=ExportDropped.OVERSIZE)


def test_a_collector_acknowledges_the_first_of_what_is_still_being_sent() -> None:
    queue, session, _ = begun(100)
    queue.acknowledge(30)
    all_but(queue, session, ())
    assert (queue.taken, queue.unacknowledged, queue.stats.sent) == (0, 70, 100)
    queue.put(records(*({"sourceIP": "10.0.0.1"},) * 10))
    encode_next(queue, session, 1, oversize=ExportDropped.OVERSIZE)
    all_but(queue, session, ())
    queue.acknowledge(110)
    assert (len(queue), queue.stage.sent, queue.stage.dropped) == (0, 110, {})


def test_a_session_ends_that_acknowledged_the_first_of_what_was_being_sent() -> None:
    queue, session, messages = begun(100)
    unsent = messages[-2:]
    sent = 100 - session.records_from(unsent)
    queue.acknowledge(sent - 5)
    all_but(queue, session, unsent)
    assert queue.begin(acknowledged=True) == 5
    assert (queue.waiting, queue.stats.sent) == (105 - sent, sent)
