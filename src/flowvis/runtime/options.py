"""How a settings class says what it takes: frozen dataclasses whose fields are options.

    @dataclass(frozen=True)
    class Collector:
        enable: bool = option(False, doc="Whether records go there")
        address: str = option("", doc="host:port", live=True)

Types: bool, int, float, str, Path, `Duration`, an Enum (by value, any case), a nested settings
class, `tuple[one of these, ...]`, any of these with `| None`, and any type that has a `parse`.
Keys are the attribute names in camelCase, as Antrea writes them (`maxIPFIXMsgSize`).
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

DURATION = "duration"
Duration = Annotated[float, DURATION]
"""Seconds inside, a Go duration in the document."""

POD = "KUBERNETES_SERVICE_HOST"
"""The variable that the kubelet gives to every container: where the API server is."""

ACRONYMS = {"id": "ID", "ipfix": "IPFIX", "uids": "UIDs", "url": "URL"}


@dataclass(frozen=True)
class Option:
    """What is known of one option beside its type and default."""

    doc: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    key: str | None = None
    env: str | None = None
    live: bool = False
    secret: bool = False
    parse: Callable[[str], Any] | None = None
    takes: str = ""
    in_pod: Any = None


def option(
    default: Any,
    *,
    doc: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    key: str | None = None,
    env: str | None = None,
    live: bool = False,
    secret: bool = False,
    parse: Callable[[str], Any] | None = None,
    takes: str = "",
    in_pod: Any = None,
) -> Any:
    """Declare an option.

    `minimum` and `maximum` are inclusive, in seconds for durations; `choices` are texts, matched in
    any case; `key` replaces the derived key; `env` names a variable that wins over the document;
    `live` options take effect without a restart; a `secret` is never shown; `parse` makes the value
    from text and raises ValueError with what is wrong; `takes` says in words what it takes;
    `in_pod` is the default where a daemon runs in a Pod, if that is another.
    """
    if parse is not None:
        default, in_pod = (
            parse(value) if isinstance(value, str) else value for value in (default, in_pod)
        )
    about = Option(doc, minimum, maximum, choices, key, env, live, secret, parse, takes, in_pod)
    return dataclasses.field(default=default, metadata={"option": about})


def section(cls: type, *, doc: str, live: bool = False) -> Any:
    """Declare a nested settings class, with its own defaults; `live`: all of its options are."""
    return dataclasses.field(default_factory=cls, metadata={"option": Option(doc, live=live)})


@dataclass(frozen=True)
class Slot:
    """One option of a settings class, with its type resolved."""

    attribute: str
    key: str
    hint: Any
    optional: bool
    default: Any
    about: Option

    def default_where(self, *, in_pod: bool) -> Any:
        """Return the default in a Pod, or elsewhere."""
        return self.about.in_pod if in_pod and self.about.in_pod is not None else self.default

    @property
    def item(self) -> Any:
        """The type of a list's items, or None where the option is not a list."""
        return get_args(self.hint)[0] if get_origin(self.hint) is tuple else None

    @property
    def nested(self) -> type | None:
        """The settings class of a section, or of a list of sections."""
        hint = self.item or self.hint
        return hint if dataclasses.is_dataclass(hint) and self.about.parse is None else None  # type: ignore[return-value]  # a class


def slots(cls: type, *, live: bool = False) -> Iterator[Slot]:
    """Go through the options of a settings class in their order; `live` if its section is."""
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        about = field.metadata.get("option")
        if about is None:
            raise TypeError(f"{cls.__name__}.{field.name} is not declared with option()")
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        else:
            default = field.default
        hint, optional = _without_none(hints[field.name])
        key = about.key or camel_case(field.name)
        about = replace(about, live=about.live or live)
        yield Slot(field.name, key, hint, optional, default, about)


def camel_case(attribute: str) -> str:
    """Return the key of an attribute: `max_ipfix_msg_size` is `maxIPFIXMsgSize`."""
    first, *rest = attribute.split("_")
    return first + "".join(ACRONYMS.get(word, word.capitalize()) for word in rest)


def is_duration(hint: Any) -> bool:
    """Whether a type is `Duration`."""
    return get_origin(hint) is Annotated and DURATION in get_args(hint)


def is_enum(hint: Any) -> bool:
    """Whether a type is an Enum."""
    return isinstance(hint, type) and issubclass(hint, Enum)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in {Union, UnionType}:
        return hint, False
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if len(kinds) != 1:
        raise TypeError(f"{hint}: one type, or one type and None")
    return kinds[0], True
