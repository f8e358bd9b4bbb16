"""Seeded mutations of files, and the judgement of what a call makes of each.

Every mutation depends on its number only, so a finding is repeated by its number. A call may accept
a mutated file or refuse it on purpose; any other exception, a call to exit, or a call that doesn't
end is a finding.
"""

import contextlib
import copy
import io
import json
import random
import resource
import signal
import traceback
import zipfile
from collections import Counter

from relucate.errors import RelucateError

WATCHDOG = 120  # seconds after which a call counts as hanging
MEMORY = 12 * 2**30  # bytes of address space that a call may add
FULL, SMALL = 1000, 20  # mutations of each kind in the nightly and in the default suite
ODD = [
    *(None, True, False, 0, -1, 1, 0.5, 1e-320, 1e308, 2**63, 10**400, -(2**31), 7),
    *(float("nan"), float("inf"), "", "x", "0", "-1", "\ud800", "\x1b[31m", "../../x", "a" * 5000),
    *([], {}, [[]], [None], {"": None}, [0] * 50, [1, [2, [3]]], {"class_name": "x"}),
]


class Hang(BaseException):
    """A call took longer than the watchdog allows."""


def mutated_bytes(data, rng):
    """Return bytes with one to three changes: flipped, cut, removed, repeated, overwritten."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if not data:
            break
        at = rng.randrange(len(data))
        length = rng.choice([1, 1, 2, 4, 8, 64, 1024])
        kind = rng.choice(["flip", "set", "cut", "remove", "repeat", "insert", "number"])
        if kind == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "set":
            part = data[at : at + length]
            data[at : at + length] = bytes([rng.choice([0, 255, 127, 128])]) * len(part)
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        elif kind == "insert":
            data[at:at] = rng.randbytes(length)
        else:
            value = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1])
            data[at : at + 8] = value.to_bytes(8, rng.choice(["little", "big"]))
    return bytes(data)


def mutated_json(value, rng):
    """Return plain data with one to three changes somewhere inside."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(value))
        if not places:
            break
        holder, key = rng.choice(places)
        kind = rng.choice(["odd", "odd", "odd", "remove", "rename", "repeat", "near", "swap"])
        if kind == "remove":
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[str(key) + rng.choice(["", "_", "\x00", "s"])] = holder.pop(key)
        elif kind == "repeat" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == "near" and isinstance(holder[key], (int, float, str)):
            holder[key] = _near(holder[key], rng)
        elif kind == "swap":
            other, name = rng.choice(places)
            if _holds(other, name) and other[name] is not holder:
                holder[key] = copy.deepcopy(other[name])
        else:
            holder[key] = copy.deepcopy(rng.choice(ODD))
    return value


def _places(value):
    """Yield every (dict or list, key or index) inside a value."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _holds(holder, key):
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _near(value, rng):
    if isinstance(value, str):
        return rng.choice([value[:-1], value + value, value.upper(), value[::-1]])
    return rng.choice([-value, value + 1, value * 1000, float(value), str(value)])


def rezipped(data, member, change):
    """Return a zip archive in which `change` made a member's new bytes, with a right checksum."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info.filename, change(content) if info.filename == member else content)
    return out.getvalue()


def mutated_zip(data, rng):
    """Return an archive that is mutated as a whole, or of which one member is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = rng.choice([None, *archive.namelist()])
    if member is None:
        return mutated_bytes(data, rng)

    def change(content):
        if not member.endswith(".json") or rng.random() < 0.2:
            return mutated_bytes(content, rng)
        return dumped(mutated_json(json.loads(content), rng))

    return rezipped(data, member, change)


def dumped(value):
    """Return JSON that also holds what JSON has no words for."""
    return json.dumps(value).encode()


@contextlib.contextmanager
def guarded():
    """Limit the memory, and raise Hang in a call that doesn't end."""

    def bark(*_):
        raise Hang(f"no end within {WATCHDOG} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, bark)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
        signal.alarm(WATCHDOG)
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def campaign(mutate, call, count, *, first=0):
    """Mutate and call `count` times; return how many mutations were accepted and refused.

    mutate: takes a random generator and returns what `call` gets. Raises AssertionError with the
    numbers and tracebacks of all findings.
    """
    seen, findings = Counter(), []
    for number in range(first, first + count):
        mutated = mutate(random.Random(number))
        try:
            with guarded(), contextlib.redirect_stdout(io.StringIO()):
                call(mutated)
        except RelucateError as error:
            seen["refused" if str(error) else "refused without a word"] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            seen["finding"] += 1
            where = "".join(traceback.format_exception(error)[-6:])
            findings.append(f"mutation {number}: {where[-1500:]}")
        else:
            seen["accepted"] += 1
    assert not findings, f"{dict(seen)}\n" + "\n".join(findings[:20])
    assert not seen["refused without a word"], f"{dict(seen)}"
    assert seen["refused"], f"nothing was refused: {dict(seen)}"
    print(f"{count} mutations: {dict(seen)}")
    return seen
