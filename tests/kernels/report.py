"""What the guest said, judged and as a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PROGRAMS = ("from_pod", "to_pod")

DROP = 2
"""TC_ACT_SHOT: what every packet must meet that comes from an interface without an endpoint."""

BEGIN = "<!-- make test-kernels: begin -->"
END = "<!-- make test-kernels: end -->"


@dataclass(frozen=True)
class Program:
    """One program as the verifier saw it."""

    instructions: int
    """Of the loaded program."""
    processed: int
    """Instructions that the verifier walked; the kernel's limit is 1,000,000."""
    states: int
    verify_us: int


@dataclass
class Result:
    """All that one kernel said."""

    release: str = ""
    programs: dict[str, Program] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], int] = field(default_factory=dict)
    """Program and packet to the program's return value."""
    attached: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Program to the way it was attached (tcx, clsact) and what it did to a datagram (drops, passes)."""
    failures: list[str] = field(default_factory=list)
    done: bool = False
    last: str = ""
    """The last line of all, whoever printed it."""

    @property
    def series(self) -> str:
        """The release without what the distribution adds: 6.12."""
        return ".".join(re.split(r"[.-]", self.release)[:2])


def parse(lines: Iterable[str]) -> Result:
    """Read the guest's lines; what the kernel prints among them is passed over."""
    result = Result()
    for line in lines:
        result.last = line.strip() or result.last
        match line.split():
            case ["kernel", release]:
                result.release = release
            case ["program", name, *numbers] if len(numbers) == 4:
                result.programs[name] = Program(*map(int, numbers))
            case ["run", program, packet, verdict]:
                result.verdicts[program, packet] = int(verdict)
            case ["attached", name, way, effect]:
                result.attached[name] = (way, effect)
            case ["failed" | "verifier" | "libbpf:", *_]:
                result.failures.append(line)
            case ["done"]:
                result.done = True
    return result


def problems(result: Result) -> list[str]:
    """Why this kernel does not pass, in the order of what to look at first."""
    found = list(result.failures)
    if not result.done:
        found.append(f"the guest did not come to its end; the last line is: {result.last or '(none)'}")
    for name in PROGRAMS:
        if name not in result.programs:
            found.append(f"{name} is not loaded")
            continue
        packets = [packet for program, packet in result.verdicts if program == name]
        if not packets:
            found.append(f"{name} ran on no packet")
        found += [
            f"{name} lets {packet} from an unknown interface pass ({result.verdicts[name, packet]})"
            for packet in packets
            if packet.startswith("tcp") and result.verdicts[name, packet] != DROP
        ]
        way, effect = result.attached.get(name, ("nothing", "is not attached"))
        if effect != "drops":
            found.append(f"{name} on {way} {effect}, it must drop what has no endpoint")
    return found


def differences(results: Sequence[Result]) -> list[str]:
    """Packets on which two kernels disagree."""
    if not results:
        return []
    first, *others = results
    return [
        f"{program} answers {packet} with {verdict} on {first.series}, {other.verdicts.get((program, packet))} on "
        f"{other.series}"
        for (program, packet), verdict in first.verdicts.items()
        for other in others
        if other.verdicts.get((program, packet)) != verdict
    ]


def table(results: Sequence[Result], emulated: Iterable[str]) -> str:
    """The Markdown table of docs/kernels.md.  Series in `emulated` ran under emulation."""
    slow = set(emulated)
    rows = [
        "| kernel | program | attached by | instructions | walked by the verifier | states | verified in |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for result in results:
        rows += [
            f"| {result.series} | `{name}` | {result.attached[name][0]} | {program.instructions:,} | {program.processed:,} | "
            f"{program.states:,} | {program.verify_us / 1000:,.1f} ms{' (emulated)' * (result.series in slow)} |"
            for name, program in result.programs.items()
        ]
    return "\n".join(rows)


def update(page: str, new: str) -> str:
    """The page with its table replaced, unless only times have changed."""
    before, begin, rest = page.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no {BEGIN} and {END} around its table")
    if _without_times(old) == _without_times(new):
        return page
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def _without_times(text: str) -> list[str]:
    return [row.rsplit("|", 2)[0] for row in text.strip().splitlines()]
