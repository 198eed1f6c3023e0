"""Which statements are run for people: one that reads, from tables, and says where on its own.

The engine enforces this by the rights of who asks (see `embedded` and `server`). This check comes
before, for what no right covers: an embedded engine writes INTO OUTFILE as the process that it is
in, and an old server has fewer rights to give. It does not understand SQL. It takes what all
versions of ClickHouse cut into the same tokens, and refuses the rest: comments are taken out,
and `#`, `//`, `$`, backslashes and characters beyond ASCII are quoted or refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from flowvis.clickhouse.schema.literals import literal
from flowvis.errors import StoreError

MAX_LENGTH = 32 << 10
"""Bytes of a statement that people write."""
COMPOSED_LENGTH = 248 << 10
"""Bytes of a statement that we compose: ClickHouse reads 256 KiB (max_query_size)."""


class Kind(Enum):
    """Kinds of tokens."""

    WORD = "word"
    NAME = "quoted name"
    TEXT = "text"
    NUMBER = "number"
    SIGN = "sign"
    SPACE = "space"
    """Also a comment."""


class Token(NamedTuple):
    """A piece of a statement; `text` of a word is in capitals, of a quoted name without quotes."""

    kind: Kind
    text: str
    written: str
    plain: bool = True
    """Whether it is refused nowhere, and changes nothing, but where a table is expected."""

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these keywords."""
        return self.kind is Kind.WORD and self.text in words

    def is_sign(self, sign: str) -> bool:
        """Whether it is this character."""
        return self.kind is Kind.SIGN and self.text == sign

    @property
    def name(self) -> str:
        """The identifier that it is, or ""; keywords are identifiers where they stand as such."""
        if self.kind is Kind.WORD:
            return self.written
        return self.text if self.kind is Kind.NAME else ""


_END = Token(Kind.SIGN, "", "")
_COMMENTS = ("--", "/*")

_TOKEN = re.compile(
    r"""(?P<space>[\ \t\r\n]+|--[^\n]*|/\*(?:[^*/]|\*(?!/)|/(?!\*))*\*/)
      | (?P<text>'(?:[^'\\]|\\.)*')
      | (?P<name>"[^"\\]*"|`[^`\\]*`)
      | (?P<number>[0-9][A-Za-z0-9_]*)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>//|[-+*/%=<>!|&?:@()\[\]{},.;])
      | (?P<unsure>.)""",
    re.VERBOSE | re.DOTALL,
)
_ELSEWHERE = "{}(...) reads from elsewhere than the store"
_UNSURE = {
    "#": "versions of ClickHouse differ in what # begins: write comments as -- or /* */",
    "//": "versions of ClickHouse differ in what // begins: write comments as -- or /* */",
    "$": "$ can quote text in some versions of ClickHouse: use '...'",
    "\\": "a backslash stands only in '...'",
    "'": "'...' does not end",
    '"': 'a quoted name does not end, or has a backslash: write it as "..."',
    "`": 'a quoted name does not end, or has a backslash: write it as "..."',
    "/": "a comment does not end, or has another in it",
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BEGINNINGS = _words("SELECT WITH FROM EXPLAIN SHOW DESCRIBE DESC EXISTS")
_SHOWN = _words(
    "TABLES DATABASES CREATE COLUMNS FIELDS FULL EXTENDED INDEX INDEXES INDICES KEYS FUNCTIONS "
    "TABLE"
)
_PRINCIPALS = _words("USER ROLE POLICY ROW QUOTA PROFILE SETTINGS NAMED ACCESS")
_WRITING = ("INSERT", "OUTFILE", "INFILE")
_CHANGING = _words(
    "CREATE ALTER DROP ATTACH DETACH RENAME OPTIMIZE TRUNCATE GRANT REVOKE KILL BACKUP RESTORE "
    "SET USE EXECUTE PARALLEL"
)
_OF_PARTS = _words("EXTRACT TRIM LTRIM RTRIM SUBSTRING OVERLAY POSITION")
_CLAUSES = _words(
    "WHERE PREWHERE GROUP ORDER LIMIT HAVING SETTINGS UNION INTERSECT EXCEPT WINDOW QUALIFY "
    "OFFSET FETCH SELECT"
)
_RULED_WORDS = _CHANGING | _CLAUSES | _words("INTO FORMAT FROM JOIN") | set(_WRITING)
_RULED_SIGNS = frozenset("();,")
"""What the rules below are about wherever it stands."""
TABLE_FUNCTIONS = _words("numbers numbers_mt zeros zeros_mt values generate_series generateseries")
"""Table functions that make their rows themselves; all others read something else."""
_SOURCES = re.compile(
    r"(?:url|file|s3|gcs|hdfs|cosn|oss|azure|iceberg|deltaLake|hudi|paimon|remote|cluster|mysql"
    r"|ytsaurus|postgresql|sqlite|mongo|redis|odbc|jdbc|arrow|hive|executable|input|dictionary|merge"
    r"|python|catboost|shard|bigquery|prometheus)\w*",
    re.IGNORECASE,
)
"""What has the name of a table function of elsewhere. It is called nowhere, as any keyword may be a
name, after which a table stands where none is expected; and the right side of IN may be one."""
_OF_ROWS = _words(
    "urlhash urlhierarchy urlpathhierarchy hivehash icebergbucket iceberghash icebergtruncate"
    " mergetreepartinfo mergedjsonpatch shardcount shardnum"
)
"""Functions of a row that have such names."""
_FUNCTIONS = re.compile(
    r"file|(?:dict(?:Get|Has|Is)|joinGet|catboost|modelEvaluate|reverseDNS|addressTo|filesystem"
    r"|authenticated|getClientHTTPHeader|executable).*|hasColumnInTable",
    re.IGNORECASE,
)
"""Functions of a row that read from elsewhere: old servers ask any host for a table's columns."""
_MODELS = re.compile(r"(?:ai|AI|llm|LLM)[A-Z].*")
"""Functions that call out to a language model."""
SYSTEM_TABLES = _words(
    "one numbers numbers_mt zeros zeros_mt columns tables databases parts functions "
    "data_type_families time_zones build_options contributors metrics asynchronous_metrics events "
    "errors merges mutations settings"
)
"""Tables of `system` that tell of the store and not of its users, queries or secrets."""


def readable(sql: str, max_length: int = MAX_LENGTH) -> str:
    """Return a statement that only reads, without comments; StoreError says what it must not have.

    A reason names the piece and the remedy.
    """
    try:
        length = len(sql.encode())
    except UnicodeEncodeError as error:
        raise _refused("half of a surrogate pair is no character") from error
    if length > max_length:
        raise _refused(f"longer than {max_length} bytes")
    pieces = list(_pieces(sql))
    while pieces and (pieces[-1].is_sign(";") or pieces[-1].kind is Kind.SPACE):
        pieces.pop()
    tokens = [piece for piece in pieces if piece.kind is not Kind.SPACE]
    if not tokens:
        raise _refused("the query is empty")
    _check_beginning(tokens)
    _check_tokens(tokens)
    _check_sources(tokens)
    return "".join(piece.written for piece in pieces).strip()


Parameter = str | bytes | int | Sequence[str] | Sequence[bytes] | Sequence[int]
"""What a placeholder stands for; a sequence for Array(...)."""

_PLACEHOLDER = re.compile(
    r"""'(?:[^'\\]|\\.)*' | "[^"\\]*" | `[^`\\]*`
      | \{(?P<name>\w+):(?P<array>Array\()?(?P<kind>\w+(?:\([0-9]+\))?)(?(array)\))\}""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)


def bind(text: str, parameters: Mapping[str, Parameter]) -> str:
    """Write parameters as literals in place of `{name:Type}`, which old servers do not know.

    Types are String, UInt64, FixedString(n) and Array(...) of them; what is quoted in the text
    stays as it is. ValueError where a parameter is missing, left over, or not of its type.
    """
    used: set[str] = set()

    def written(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return match[0]
        if name not in parameters:
            raise ValueError(f"{match[0]}: there is no such parameter")
        used.add(name)
        try:
            return _literals(parameters[name], match["kind"], listed=bool(match["array"]))
        except ValueError as error:
            raise ValueError(f"{match[0]}: {error}") from None

    bound = _PLACEHOLDER.sub(written, text)
    if left := sorted(parameters.keys() - used):
        raise ValueError(f"parameters that the statement does not have: {', '.join(left)}")
    return bound


def _literals(value: Parameter, kind: str, *, listed: bool) -> str:
    """Write one value, or a list of some, which stands behind IN."""
    if not listed:
        return _literal(kind, value)
    if isinstance(value, str | bytes | int) or not value:
        raise ValueError(f"{value!r} is no list of values")
    return f"({', '.join(_literal(kind, each) for each in value)})"


def _literal(kind: str, value: object) -> str:
    """Write one value; a text may be bytes that are not UTF-8."""
    match kind, value:
        case "UInt64", bool():
            pass
        case "UInt64", int() if 0 <= value < 1 << 64:
            return str(value)
        case "String", str() | bytes():
            return literal(value)
        case _, bytes() if kind == f"FixedString({len(value)})":
            return f"toFixedString(unhex('{value.hex()}'), {len(value)})"
    raise ValueError(f"{value!r} is no {kind}")


_SELECTING = re.compile(r"[(\s]*(?:SELECT|WITH|FROM)\b", re.IGNORECASE | re.ASCII)


def streamable(statement: str) -> bool:
    """Whether a readable statement is a SELECT, so that its rows come as they are found."""
    return _SELECTING.match(statement) is not None


def _refused(reason: str) -> StoreError:
    return StoreError(f"query refused: {reason}", retryable=False)


def _pieces(sql: str) -> Iterator[Token]:
    """Cut a statement; what is written alike is one token, of which most statements have few."""
    known: dict[str, Token] = {}
    for match in _TOKEN.finditer(sql):
        group, written = match.lastgroup, match[0]
        begins = written == "//" or (written == "/" and sql.startswith("*", match.end()))
        if group is None or group == "unsure" or begins:
            raise _refused(_unsure(sql, match.start()))
        token = known.get(written)
        if token is None:
            token = known[written] = _token(Kind[group.upper()], written)
        yield token


def _token(kind: Kind, written: str) -> Token:
    """Make a token of what is written."""
    match kind:
        case Kind.SPACE:
            return Token(kind, "", " " if written.startswith(_COMMENTS) else written)
        case Kind.WORD:
            text, name = written.upper(), written
        case Kind.NAME:
            text = name = written[1:-1]
        case _:
            text, name = written, ""
    ruled = (
        (kind is Kind.WORD and text in _RULED_WORDS)
        or (kind is Kind.SIGN and text in _RULED_SIGNS)
        or name.lower() == "system"
        or any(pattern.fullmatch(name) for pattern in (_FUNCTIONS, _MODELS, _SOURCES))
    )
    return Token(kind, text, written, not ruled)


def _unsure(sql: str, at: int) -> str:
    """Say what is wrong with what no token begins with."""
    reason = _UNSURE.get(sql[at : at + 2]) or _UNSURE.get(sql[at])
    return reason or f"{sql[at]!a} stands only in '...' or a quoted name"


def _check_beginning(tokens: Sequence[Token]) -> None:
    """Refuse what is no statement that reads."""
    first = next((place for place, token in enumerate(tokens) if not token.is_sign("(")), 0)
    if not tokens[first].is_word(*_BEGINNINGS):
        asked = ", ".join(sorted(_BEGINNINGS))
        raise _refused(f"{tokens[first].written!r}: a query begins with one of {asked}")
    following = tokens[first + 1 : first + 4]
    if tokens[first].is_word("EXPLAIN"):
        _check_explained(tokens[first + 1 :])
    if tokens[first].is_word("SHOW"):
        shown = following[0].text if following else ""
        if shown not in _SHOWN or any(token.is_word(*_PRINCIPALS) for token in following):
            raise _refused(f"SHOW {shown}: only tables, columns, databases and functions are shown")


def _check_explained(tokens: Sequence[Token]) -> None:
    """Refuse to explain what is no SELECT: kinds and options come before it."""
    for token in tokens:
        if token.is_word("SELECT", "WITH", "FROM") or token.is_sign("("):
            return
        if token.is_word("OVERRIDE", *_WRITING, *_CHANGING):
            break
    raise _refused("only a SELECT is explained")


def _check_tokens(tokens: Sequence[Token]) -> None:
    """Refuse words and names that no statement has that only reads from tables."""
    padded = _padded(tokens)
    for at, token in enumerate(tokens):
        if token.plain:
            continue
        before, _, after, last = padded[at : at + 4]
        if token.is_sign(";"):
            raise _refused("one statement at a time: leave out ;")
        if not token.name:
            continue
        if token.is_word("INTO") or token.is_word(*_WRITING):
            raise _refused(f"{token.text}: a query only reads; redirect the output instead")
        goes_on = after.kind is Kind.WORD and not before.is_word("AS")
        if token.is_word(*_CHANGING) and goes_on and not before.is_word("SHOW"):
            raise _refused(f"{token.text} {after.text}: a query only reads")
        if token.is_word("FORMAT") and goes_on:
            raise _refused("leave FORMAT out: choose the form of the output where it is shown")
        if token.is_word("SETTINGS") and last.is_sign("="):
            raise _refused("leave SETTINGS out: limits are set by clickHouse.queries")
        _check_name(token.name, after, last)


def _check_name(name: str, after: Token, last: Token) -> None:
    """Refuse what reads from elsewhere, or tells of others."""
    if _FUNCTIONS.fullmatch(name) or _MODELS.fullmatch(name):
        raise _refused(_ELSEWHERE.format(name))
    if after.is_sign("(") and _SOURCES.fullmatch(name) and name.lower() not in _OF_ROWS:
        raise _refused(_ELSEWHERE.format(name))
    if name.lower() == "system" and after.is_sign(".") and last.name:
        table = last.name
        if table.lower() not in SYSTEM_TABLES:
            raise _refused(f"system.{table}: only {', '.join(sorted(SYSTEM_TABLES))}")


def _padded(tokens: Sequence[Token]) -> list[Token]:
    """Return the tokens with what every one has: one before it and two after it."""
    return [_END, *tokens, _END, _END]


@dataclass(slots=True)
class _Level:
    """One pair of parentheses."""

    names_parts: bool = False
    """Of a function whose arguments have FROM among them, as EXTRACT(DAY FROM moment)."""
    tables: bool = False
    """In its list of tables."""
    expected: bool = False
    """A table is named next."""


def _check_sources(tokens: Sequence[Token]) -> None:
    """Refuse tables that are functions of elsewhere, or texts (files, to some versions)."""
    levels = [_Level(expected=tokens[0].is_word("DESCRIBE", "DESC", "EXISTS"))]
    padded = _padded(tokens)
    for at, token in enumerate(tokens):
        level = levels[-1]
        if token.plain and not level.expected:
            continue
        before, _, after, _ = padded[at : at + 4]
        if token.is_sign("("):
            levels.append(_Level(before.is_word(*_OF_PARTS), expected=level.expected))
            level.expected = False
        elif token.is_sign(")"):
            if len(levels) > 1:
                levels.pop()
        elif token.is_sign(","):
            level.expected = level.tables
        elif token.kind is Kind.WORD and not before.is_sign("."):
            _follow(level, tokens[max(at - 3, 0) : at], token, after)
        elif token.name or token.kind is Kind.TEXT:
            _check_source(level, token, after)


def _follow(level: _Level, behind: Sequence[Token], token: Token, after: Token) -> None:
    """Take a word, `behind` some others: it begins or ends a list of tables, or is the name of one.

    What stands after AS, before a comma, or where a table is expected is a name, also a keyword: it
    ends none.
    """
    before = behind[-1] if behind else _END
    named = before.is_word("AS") or after.is_sign(",")
    named = named or (level.expected and not before.is_sign("("))
    if token.is_word("SELECT") and not named:
        level.names_parts = level.tables = level.expected = False
    elif token.is_word("FROM"):
        if not level.names_parts and not _compares(behind):
            level.tables = level.expected = True
    elif token.is_word("JOIN"):
        level.tables = level.expected = not before.is_word("ARRAY")
    elif token.text in _CLAUSES and not named:
        level.tables = level.expected = False
    elif before is not _END and not token.is_word("TABLE"):
        _check_source(level, token, after)


def _compares(behind: Sequence[Token]) -> bool:
    """Whether the FROM behind these is of IS DISTINCT FROM, or of IS NOT DISTINCT FROM."""
    words = [token.text if token.kind is Kind.WORD else "" for token in behind]
    return words[-2:] == ["IS", "DISTINCT"] or words[-3:] == ["IS", "NOT", "DISTINCT"]


def _check_source(level: _Level, token: Token, after: Token) -> None:
    """Refuse what is named where a table is expected and is none."""
    if not level.expected:
        return
    if token.kind is Kind.TEXT:
        raise _refused(f"{token.written}: a table is not a text")
    if after.is_sign("(") and token.name.lower() not in TABLE_FUNCTIONS:
        raise _refused(_ELSEWHERE.format(token.name))
    level.expected = after.is_sign(".")
