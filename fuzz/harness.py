"""One thing that reads bytes, the inputs that it is known to read, and how these are damaged."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"

INTERESTING = (0, 1, 2, 3, 4, 10, 16, 127, 128, 254, 255)
LARGEST = 1 << 16


@dataclass(frozen=True)
class Harness:
    """`one` reads an input; whatever it raises is a defect."""

    name: str
    one: Callable[[bytes], None]

    @property
    def corpus(self) -> Path:
        """Where its inputs are, a file each."""
        return CORPUS / self.name

    def inputs(self) -> list[bytes]:
        """Return its corpus, always in the same order."""
        return [path.read_bytes() for path in sorted(self.corpus.iterdir())]

    def damaged(self, seed: int) -> Iterator[bytes]:
        """Go without end through inputs with some of their bytes changed, lost, or too many."""
        rng = random.Random(seed)
        inputs = self.inputs()
        while True:
            yield _damaged(rng.choice(inputs), rng.choice(inputs), rng)


def _damaged(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Most damage is near the front, where the structure is."""
    raw = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = min(int(rng.expovariate(1 / 60)), len(raw))
        match rng.randrange(6):
            case 0:
                raw[at : at + 1] = bytes([rng.choice(INTERESTING)])
            case 1:
                raw[at : at + 1] = rng.randbytes(1)
            case 2:
                del raw[at : at + rng.randint(1, 8)]
            case 3:
                raw[at:at] = rng.randbytes(rng.randint(1, 8))
            case 4:
                raw[at : at + 2] = rng.choice([b"\0\0", b"\xff\xff", b"\0\4", b"\1\0", b"\0\3"])
            case _:
                cut = rng.randint(0, len(other))
                raw[at:] = other[cut:]
    return bytes(raw[:LARGEST])
