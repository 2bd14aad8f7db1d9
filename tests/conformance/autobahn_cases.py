"""The cases of the Autobahn TestSuite's fuzzing client, by its numbers, as bytes to send and answers to expect.

Our server is no echo server. Where Autobahn expects its text back, a text that is a `pusher:ping` is answered with
`pusher:pong` and any other with `pusher:error`: each whole message gets exactly one answer. Deviations, both allowed by
RFC 6455: binary messages are refused with 1003, and messages over the configured limit with 1009.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PONG_EVENT, ERROR_EVENT = "pusher:pong", "pusher:error"
Answer = str | tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Case:
    """`parts` are written one after the other, each on its own; large ones are made when they are needed. `code` is the
    close code that ends the connection.

    `code` None: the connection is as good as before. `early`: the fault shows before the last part, which is held back.
    """

    number: str
    parts: tuple[bytes, ...] | Callable[[], tuple[bytes, ...]]
    answers: tuple[Answer, ...] = ()
    code: int | None = None
    early: bool = False

    def __str__(self) -> str:
        return self.number

    def made(self) -> tuple[bytes, ...]:
        return self.parts if isinstance(self.parts, tuple) else self.parts()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65_536:
        head += bytes([bit | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + len(payload).to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = os.urandom(4)
    key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(len(payload), "big")


def ping_event(size: int) -> bytes:
    """A `pusher:ping` of `size` bytes, at least 32."""
    start, end = b'{"event":"pusher:ping","data":"', b'"}'
    return start + b"*" * (size - len(start) - len(end)) + end


def octets(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[i : i + 1] for i in range(len(data)))


def chopped(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[i : i + size] for i in range(0, len(data), size))


def fragments(pieces: Sequence[bytes], opcode: int = TEXT) -> tuple[bytes, ...]:
    last = len(pieces) - 1
    return tuple(frame(opcode if i == 0 else 0, piece, fin=i == last) for i, piece in enumerate(pieces))


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def framing() -> Iterator[Case]:
    """1.1 and 1.2: messages of every length class."""
    yield Case("1.1.1", (frame(TEXT),), (ERROR_EVENT,))
    for number, size in enumerate((125, 126, 127, 128, 65_535, 65_536), 2):
        yield Case(f"1.1.{number}", (frame(TEXT, ping_event(size)),), (PONG_EVENT,))
    yield Case("1.1.8", chopped(frame(TEXT, ping_event(65_536)), 997), (PONG_EVENT,))
    for number, size in enumerate((0, 125, 126, 127, 128, 65_535, 65_536), 1):
        yield Case(f"1.2.{number}", (frame(BINARY, b"\xfe" * size),), code=1003)
    yield Case("1.2.8", chopped(frame(BINARY, b"\xfe" * 65_536), 997), code=1003)


def pings() -> Iterator[Case]:
    """2: pings and pongs."""
    binary = bytes([0, 0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0, 0xFF])
    long = b"\xfe" * 125
    yield Case("2.1", (frame(PING),), ((PONG, b""),))
    yield Case("2.2", (frame(PING, b"Hello, world!"),), ((PONG, b"Hello, world!"),))
    yield Case("2.3", (frame(PING, binary),), ((PONG, binary),))
    yield Case("2.4", (frame(PING, long),), ((PONG, long),))
    yield Case("2.5", (frame(PING, b"\xfe" * 126),), code=1002)
    yield Case("2.6", octets(frame(PING, long)), ((PONG, long),))
    yield Case("2.7", (frame(PONG),))
    yield Case("2.8", (frame(PONG, b"unsolicited pong payload"),))
    yield Case("2.9", (frame(PONG, b"unsolicited"), frame(PING, b"ping")), ((PONG, b"ping"),))
    ten = tuple(b"payload-%d" % i for i in range(10))
    answers = tuple((PONG, payload) for payload in ten)
    yield Case("2.10", tuple(frame(PING, payload) for payload in ten), answers)
    yield Case("2.11", octets(b"".join(frame(PING, payload) for payload in ten)), answers)


def reserved_bits() -> Iterator[Case]:
    """3: no extension is agreed on, so none of the reserved bits may be set."""
    good = frame(TEXT, ping_event(40))
    rest = frame(PING)
    yield Case("3.1", (frame(TEXT, ping_event(40), rsv=1),), code=1002)
    second = frame(TEXT, ping_event(40), rsv=2)
    yield Case("3.2", (good + second + rest,), (PONG_EVENT,), 1002)
    yield Case("3.3", (good, frame(TEXT, ping_event(40), rsv=3), rest), (PONG_EVENT,), 1002)
    yield Case("3.4", octets(good + frame(TEXT, ping_event(40), rsv=4) + rest), (PONG_EVENT,), 1002)
    yield Case("3.5", (frame(BINARY, b"\xff" * 8, rsv=5),), code=1002)
    yield Case("3.6", (frame(PING, b"Hello", rsv=6),), code=1002)
    yield Case("3.7", (frame(CLOSE, rsv=7),), code=1002)


def opcodes() -> Iterator[Case]:
    """4: opcodes that do not exist."""
    good = frame(TEXT, ping_event(40))
    for section, first in (("4.1", 3), ("4.2", 11)):
        yield Case(f"{section}.1", (frame(first),), code=1002)
        yield Case(f"{section}.2", (frame(first + 1, b"reserved opcode payload"),), code=1002)
        yield Case(f"{section}.3", (good + frame(first + 2) + frame(PING),), (PONG_EVENT,), 1002)
        yield Case(f"{section}.4", (good, frame(first + 3, b"payload"), frame(PING)), (PONG_EVENT,), 1002)
        yield Case(f"{section}.5", octets(good + frame(first + 4, b"payload") + frame(PING)), (PONG_EVENT,), 1002)


def fragmentation() -> Iterator[Case]:
    """5: fragments, with control frames between them, and fragments where none may be."""
    text = ping_event(60)
    halves = fragments((text[:21], text[21:]))
    good = frame(TEXT, text)
    yield Case("5.1", (frame(PING, b"fragment1", fin=False), frame(0, b"fragment2")), code=1002)
    yield Case("5.2", (frame(PONG, b"fragment1", fin=False), frame(0, b"fragment2")), code=1002)
    yield Case("5.3", (b"".join(halves),), (PONG_EVENT,))
    yield Case("5.4", halves, (PONG_EVENT,))
    yield Case("5.5", octets(b"".join(halves)), (PONG_EVENT,))
    between = (halves[0], frame(PING, b"ping payload"), halves[1])
    for number, parts in (("5.6", (b"".join(between),)), ("5.7", between), ("5.8", octets(b"".join(between)))):
        yield Case(number, parts, ((PONG, b"ping payload"), PONG_EVENT))
    for first, fin in ((9, True), (12, False)):
        parts = (frame(CONTINUATION, b"non-continuation payload", fin=fin), good)
        yield Case(f"5.{first}", (b"".join(parts),), code=1002)
        yield Case(f"5.{first + 1}", parts, code=1002)
        yield Case(f"5.{first + 2}", octets(b"".join(parts)), code=1002)
    yield Case("5.15", (*halves, frame(0, b"non-continuation", fin=False), good), (PONG_EVENT,), 1002)
    for number, fin in (("5.16", False), ("5.17", True)):
        once = (frame(0, b"fragment1", fin=fin), frame(TEXT, b"fragment2", fin=False), frame(0, b"fragment3"))
        yield Case(number, once * 2, code=1002)
    yield Case("5.18", (frame(TEXT, text[:21], fin=False), frame(TEXT, text[21:])), code=1002)
    five = fragments((text[:11], text[11:22], text[22:33], text[33:44], text[44:]))
    pinged = (*five[:2], frame(PING, b"1"), *five[2:4], frame(PING, b"2"), five[4])
    yield Case("5.19", pinged, ((PONG, b"1"), (PONG, b"2"), PONG_EVENT))
    yield Case("5.20", octets(b"".join(pinged)), ((PONG, b"1"), (PONG, b"2"), PONG_EVENT))


KOSME = "κόσμε".encode()
_BAD_START = KOSME + b"\xed\xa0\x80"
_SPACED = (
    b" ".join(bytes([b]) for b in range(0xC0, 0xE0)) + b" ",
    b" ".join(bytes([b]) for b in range(0xE0, 0xF0)) + b" ",
    b" ".join(bytes([b]) for b in range(0xF0, 0xF8)) + b" ",
    b" ".join(bytes([b]) for b in range(0xF8, 0xFC)) + b" ",
    b"\xfc \xfd ",
)
_CUT = (
    b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80",
    b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf",
)  # fmt: skip
_HIGH_LOW = [
    high + low
    for high in (b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf")
    for low in (b"\xed\xb0\x80", b"\xed\xbf\xbf")
]

SEQUENCES: dict[str, tuple[bytes, ...]] = {
    "6.5": tuple(text.encode() for text in ("hello$world", "hello¢world", "hello€world", "hello𤭢world", "κόσμε")),
    "6.6": tuple(KOSME[:size] for size in range(1, len(KOSME) + 1)),
    "6.7": (b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"),
    "6.8": (b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"),
    "6.9": (b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"),
    "6.10": (b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"),
    "6.11": (b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"),
    "6.12": (b"\x80", b"\xbf", *((b"\x80\xbf" * 3)[:size] for size in range(2, 7)), bytes(range(0x80, 0xC0))),
    "6.13": _SPACED,
    "6.14": _CUT,
    "6.15": (b"".join(_CUT),),
    "6.16": (b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"),
    "6.17": (b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"),
    "6.18": (
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xf8\x87\xbf\xbf\xbf",
        b"\xfc\x83\xbf\xbf\xbf\xbf",
    ),
    "6.19": (b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"),
    "6.20": tuple(b"\xed" + rest for rest in (b"\xa0\x80", b"\xad\xbf", b"\xae\x80", b"\xaf\xbf"))
    + tuple(b"\xed" + rest for rest in (b"\xb0\x80", b"\xbe\x80", b"\xbf\xbf")),
    "6.21": tuple(_HIGH_LOW),
    "6.22": tuple(chr(plane * 0x1_0000 + last).encode() for plane in range(17) for last in (0xFFFE, 0xFFFF)),
    "6.23": tuple(chr(point).encode() for point in range(0xFFF9, 0x1_0000)),
}


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def first_wrong(data: bytes) -> int:
    """How many bytes of `data` could still become UTF-8, or -1 when all could."""
    for size in range(1, len(data) + 1):
        try:
            data[:size].decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return size - 1
    return -1


def utf8() -> Iterator[Case]:
    """6: text is UTF-8, checked as it comes."""
    yield Case("6.1.1", (frame(TEXT),), (ERROR_EVENT,))
    yield Case("6.1.2", fragments((b"", b"", b"")), (ERROR_EVENT,))
    yield Case("6.1.3", fragments((b"", b"middle frame payload", b"")), (ERROR_EVENT,))
    valid = "Hello-µ@ßöäüàá-UTF-8!!".encode()
    boundary = len("Hello-µ@ßöä".encode())
    yield Case("6.2.1", (frame(TEXT, valid),), (ERROR_EVENT,))
    yield Case("6.2.2", fragments((valid[:boundary], valid[boundary:])), (ERROR_EVENT,))
    yield Case("6.2.3", fragments(octets(valid)), (ERROR_EVENT,))
    yield Case("6.2.4", fragments(octets(KOSME)), (ERROR_EVENT,))
    invalid = _BAD_START + b"edited"
    yield Case("6.3.1", (frame(TEXT, invalid),), code=1007)
    yield Case("6.3.2", fragments(octets(invalid)), code=1007)
    for number, start, wrong in (("1", KOSME, b"\xf4\x90\x80\x80"), ("2", KOSME + b"\xf4", b"\x90")):
        yield Case(f"6.4.{number}", fragments((start, wrong, b"edited")), code=1007, early=True)
    for number, start, wrong in (("3", KOSME, b"\xf4\x90\x80\x80"), ("4", KOSME + b"\xf4", b"\x90")):
        whole = frame(TEXT, start + wrong + b"edited")
        cut = 6 + len(start)
        parts = (whole[:cut], whole[cut : cut + len(wrong)], whole[cut + len(wrong) :])
        yield Case(f"6.4.{number}", parts, code=1007, early=True)
    for section, sequences in SEQUENCES.items():
        for number, sequence in enumerate(sequences, 1):
            if is_utf8(sequence):
                yield Case(f"{section}.{number}", (frame(TEXT, sequence),), (ERROR_EVENT,))
            else:
                yield Case(f"{section}.{number}", (frame(TEXT, sequence),), code=1007)


def utf8_at_every_split() -> Iterator[Case]:
    """Beyond Autobahn: every sequence of section 6, cut in two fragments and in two writes at every byte.

    What is wrong within the first piece must be refused before the second comes.
    """
    seen = set()
    for section, sequences in SEQUENCES.items():
        for number, sequence in enumerate(sequences, 1):
            if sequence in seen or not 2 <= len(sequence) <= 12:
                continue
            seen.add(sequence)
            answers = (ERROR_EVENT,) if is_utf8(sequence) else ()
            code = None if answers else 1007
            wrong = first_wrong(sequence)
            for cut in range(1, len(sequence)):
                early = 0 <= wrong < cut
                pieces = fragments((sequence[:cut], sequence[cut:]))
                yield Case(f"{section}.{number} fragments at {cut}", pieces, answers, code, early)
                whole = frame(TEXT, sequence)
                writes = (whole[: 6 + cut], whole[6 + cut :])
                yield Case(f"{section}.{number} writes at {cut}", writes, answers, code, early)


def closing() -> Iterator[Case]:
    """7: the close handshake; nothing behind a close frame has an effect."""
    text = ping_event(60)
    yield Case("7.1.1", (frame(TEXT, text), close(1000)), (PONG_EVENT,), 1000)
    yield Case("7.1.2", (close(1000) + close(1000),), code=1000)
    yield Case("7.1.3", (close(1000) + frame(PING),), code=1000)
    yield Case("7.1.4", (close(1000) + frame(TEXT, text),), code=1000)
    yield Case("7.1.5", (frame(TEXT, text[:20], fin=False) + close(1000) + frame(0, text[20:]),), code=1000)
    yield Case("7.1.6", (frame(TEXT, ping_event(262_144)) + close(1000) + frame(PING),), (PONG_EVENT,), 1000)
    yield Case("7.3.1", (frame(CLOSE),), code=1005)
    yield Case("7.3.2", (frame(CLOSE, b"a"),), code=1002)
    yield Case("7.3.3", (close(1000),), code=1000)
    yield Case("7.3.4", (close(1000, b"Hello World!"),), code=1000)
    yield Case("7.3.5", (close(1000, b"*" * 123),), code=1000)
    yield Case("7.3.6", (close(1000, b"*" * 124),), code=1002)
    yield Case("7.5.1", (close(1000, b"\xce\xba\xed\xa0\x80edited"),), code=1007)
    allowed = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
    for number, code in enumerate(allowed, 1):
        yield Case(f"7.7.{number} code {code}", (close(code),), code=code)
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999), 1):
        yield Case(f"7.9.{number} code {code}", (close(code),), code=1002)
    yield Case("7.13.1 code 5000", (close(5000),), code=1002)
    yield Case("7.13.2 code 65535", (close(65_535),), code=1002)


KIB, MIB = 1 << 10, 1 << 20


def _whole(opcode: int, payload: Callable[[int], bytes], size: int) -> tuple[bytes, ...]:
    return (frame(opcode, payload(size)),)


def _fragmented(whole: int, size: int) -> tuple[bytes, ...]:
    return (b"".join(fragments(chopped(ping_event(whole), size))),)


def _chopped(whole: int, size: int) -> tuple[bytes, ...]:
    return chopped(frame(TEXT, ping_event(whole)), size)


def _bytes(size: int) -> bytes:
    return b"\xfe" * size


def limits() -> Iterator[Case]:
    """9: large messages, for a server whose limit is 1 MiB; what is over it is refused by its header alone."""
    for number, size in enumerate((64 * KIB, 256 * KIB, MIB), 1):
        yield Case(f"9.1.{number}", partial(_whole, TEXT, ping_event, size), (PONG_EVENT,))
    for number, size in enumerate((4 * MIB, 8 * MIB, 16 * MIB), 4):
        yield Case(f"9.1.{number}", partial(_whole, TEXT, ping_event, size), code=1009)
    for number, size in enumerate((64 * KIB, 256 * KIB, MIB), 1):
        yield Case(f"9.2.{number}", partial(_whole, BINARY, _bytes, size), code=1003)
    for number, size in enumerate((4 * MIB, 8 * MIB, 16 * MIB), 4):
        yield Case(f"9.2.{number}", partial(_whole, BINARY, _bytes, size), code=1009)
    for number, size in enumerate((64, 256), 1):
        yield Case(f"9.3.{number} in 1 MiB", partial(_fragmented, MIB, size), code=1009)
    for number, size in enumerate((KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB), 3):
        yield Case(f"9.3.{number} in 1 MiB", partial(_fragmented, MIB, size), (PONG_EVENT,))
    yield Case("9.3.9", partial(_fragmented, 4 * MIB, 256 * KIB), code=1009)
    for number, size in enumerate((64, 128, 256, 512, KIB, 2 * KIB), 1):
        yield Case(f"9.5.{number}", partial(_chopped, MIB if size >= 512 else 64 * KIB, size), (PONG_EVENT,))
    for number, size in enumerate((0, 16, 64, 256, KIB, 4 * KIB), 1):
        message, answer = (
            (frame(TEXT, b"x" * size), ERROR_EVENT) if size < 64 else (frame(TEXT, ping_event(size)), PONG_EVENT)
        )
        yield Case(f"9.7.{number}", (message * 500,), (answer,) * 500)
    yield Case("10.1.1", fragments(chopped(ping_event(65_536), 1_300)), (PONG_EVENT,))
