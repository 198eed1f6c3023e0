"""What exporters connect to, by the settings: the server, its TLS files and its certificates."""

import os

from flowvis.aggregator.certificates.keeper import Certificates
from flowvis.aggregator.collector import Collector
from flowvis.aggregator.settings import AggregatorSettings, Transport
from flowvis.transport.datagram_server import DatagramLimits, DatagramServer
from flowvis.transport.server import Server, SessionLimits
from flowvis.transport.tls import TlsFiles


def server(
    settings: AggregatorSettings, collector: Collector, memory: int, drain_s: float
) -> Server | DatagramServer:
    """Return the server; over UDP, half of its memory, in bytes, is for what waits.

    Sessions have `drain_s` to finish when it stops.
    """
    listen = settings.listen
    guests = settings.api_server.max_connections
    if settings.aggregator_transport_protocol is Transport.UDP:
        return DatagramServer(
            collector.open_datagrams,
            host=listen.address,
            port=listen.port,
            limits=DatagramLimits(
                sessions=listen.max_sessions,
                sessions_per_address=listen.max_sessions_per_address,
                guests=guests,
                waiting_bytes=memory // 2,
                template_bytes=memory // 4,
                per_second=listen.udp.max_datagrams_per_second,
                buffer_bytes=listen.udp.receive_buffer << 10,
                idle_s=listen.udp.template_lifetime,
            ),
        )
    return Server(
        collector.open,
        host=listen.address,
        port=listen.port,
        tls=server_tls(settings),
        limits=SessionLimits(
            sessions=listen.max_sessions,
            sessions_per_address=listen.max_sessions_per_address,
            guests=guests,
            age_s=listen.max_session_age or None,
        ),
        drain_s=drain_s,
    )


def server_tls(settings: AggregatorSettings) -> TlsFiles | None:
    """Return the files of its side; None where exporters come without TLS."""
    encrypted = settings.aggregator_transport_protocol is Transport.TLS
    return _tls_files(settings) if encrypted else None


def _tls_files(settings: AggregatorSettings) -> TlsFiles:
    named = settings.tls
    return TlsFiles(named.ca, named.certificate, named.key, named.min_version)


def certificates(settings: AggregatorSettings) -> Certificates | None:
    """Return what issues them; None where others do, or nobody needs one."""
    chosen = settings.certificates
    files = server_tls(settings)
    if not chosen.issue or files is None:
        return None
    return Certificates(
        settings.inventory.kubernetes.access,
        chosen.names(os.environ),
        files,
        server_names(settings),
        look_s=chosen.check_interval,
    )


def server_names(settings: AggregatorSettings) -> list[str]:
    """Return the names in a certificate that the aggregator issues to itself.

    The last two are for people, who come through a forwarded port.
    """
    chosen = settings.certificates
    namespace = chosen.names(os.environ).namespace
    names = (
        f"{chosen.service}.{namespace}.svc",
        chosen.service,
        f"{chosen.service}.{namespace}",
        settings.flow_aggregator_address,
        "localhost",
        "127.0.0.1",
    )
    return [name for name in names if name]
