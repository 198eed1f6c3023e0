"""What of Antrea's configuration names destinations that are not built yet."""

from dataclasses import dataclass
from enum import Enum

from flowvis.aggregator.destinations.kind import Problems
from flowvis.runtime.settings import Duration, option


class FileFormat(Enum):
    """What a file is made of."""

    CSV = "CSV"


def later(enabled: bool, what: str) -> Problems:
    """Yield the problem of an option that switches on what does not exist yet."""
    if enabled:
        yield "enable", f"{what} is not supported yet: leave it false"


@dataclass(frozen=True)
class S3Uploader:
    """Antrea's upload to S3: not built yet."""

    enable: bool = option(False, doc="Not supported yet")
    bucket_name: str = option("", doc="Not used yet")
    bucket_prefix: str = option("", doc="Not used yet")
    region: str = option("us-west-2", doc="Not used yet")
    record_format: FileFormat = option(FileFormat.CSV, doc="Not used yet")
    compress: bool = option(True, doc="Not used yet")
    max_records_per_file: int = option(1_000_000, doc="Not used yet", minimum=1)
    upload_interval: Duration = option(60.0, doc="Not used yet", minimum=1)

    def check(self) -> Problems:
        """Yield the problem of switching it on."""
        yield from later(self.enable, "uploading to S3")


@dataclass(frozen=True)
class FlowStreamService:
    """Antrea's gRPC stream of flows: not built yet."""

    enable: bool = option(False, doc="Not supported yet; `flowctl flows --follow` does it locally")

    def check(self) -> Problems:
        """Yield the problem of switching it on."""
        yield from later(self.enable, "the flow stream service")
