"""What struck where, and whether it was enough to say that anything was shown."""

from collections import Counter
from dataclasses import dataclass, field

#: In their order in a run. ``key`` is the part of the index stage that adds constraints.
STAGES = ("freeze", "plan", "load", "index", "key", "verify", "cutover")

# Two cores reach four times as much (docs/faults.md), or half as much again while they have
# five times more to do than they can; a soak that strikes less shows little.
_SECONDS_A_FAULT = 30
_SECONDS_A_FAULT_OF_A_STAGE = 300


@dataclass
class Tally:
    """Counts faults that found a run in the midst of a stage."""

    struck: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, fault: str, stage: str) -> None:
        self.struck[fault, stage] += 1

    @property
    def total(self) -> int:
        return self.struck.total()

    def of_stage(self, stage: str) -> int:
        return sum(times for (_, where), times in self.struck.items() if where == stage)

    def shortfalls(self, seconds: float) -> list[str]:
        """Say what was struck too seldom in so many seconds; nothing if it was enough."""
        least = {"all stages": max(1, int(seconds / _SECONDS_A_FAULT))}
        least |= dict.fromkeys(STAGES, max(1, int(seconds / _SECONDS_A_FAULT_OF_A_STAGE)))
        times = {"all stages": self.total} | {stage: self.of_stage(stage) for stage in STAGES}
        return [
            f"only {times[where]} faults struck in {where}, at least {number} should have"
            for where, number in least.items()
            if times[where] < number
        ]

    def table(self) -> str:
        """The table of faults by stage, in Markdown."""
        lines = [
            f"| fault | {' | '.join(STAGES)} | all |",
            f"| --- {'| ---: ' * (len(STAGES) + 1)}|",
        ]
        for fault in sorted({fault for fault, _ in self.struck}):
            times = [self.struck[fault, stage] for stage in STAGES]
            lines.append(f"| {fault} | {' | '.join(map(str, times))} | {sum(times)} |")
        times = [self.of_stage(stage) for stage in STAGES]
        lines.append(f"| all | {' | '.join(map(str, times))} | {self.total} |")
        return "\n".join(lines)
