"""Draws a failed run: which task took which step, and where a task was preempted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from string import ascii_uppercase
from typing import Final

from agentpool.testing._simulation.orders import Plan
from agentpool.testing._simulation.places import Place, source_of, text_of
from agentpool.testing._simulation.run import Cut
from agentpool.testing._simulation.watch import Step

END_STEPS: Final = 14
"""How many steps at the end of a run are always drawn."""

AROUND: Final = 2
"""How many steps before and after a preemption are drawn."""


MARKS: Final = 10
"""The most preemptions that are drawn. If a run has more, only its last ones are drawn."""


def draw(
    steps: Sequence[Step], names: Mapping[int, str], plan: Plan, cut: Cut | None = None
) -> str:
    """Draw a run with a column for each task and a line for each step.

    Args:
        steps: All steps of the run.
        names: The names of its tasks.
        plan: The order of the run, as it is after the run has ended.
        cut: What was cancelled, and when. ``None``: nothing was cancelled.
    """
    shown = _shown(len(steps), plan, cut)
    tasks = sorted(
        {steps[index][0] for index in shown}
        | {mark.preempted for mark in plan.marks if mark.step in shown}
        | (cut.tasks if cut is not None else set())
    )
    letters = {task: _letter(nth) for nth, task in enumerate(tasks)}
    lines = [f"  {letters[task]} = {names[task]}" for task in tasks]
    lines.append("  step " + " ".join(letters.values()))
    before = -1
    for index in shown:
        if index > before + 1:
            lines.append("    …")
        before = index
        for mark in plan.marks:
            if mark.step == index:
                place = _waits_at(steps, index, mark.preempted)
                text = f"preempted, while at {_told(place)}"
                lines.append(_row("", tasks, {mark.preempted}, "x", text))
        if cut is not None and cut.step == index:
            lines.append(_row("", tasks, cut.tasks, "c", "cancelled"))
        task, place = steps[index]
        lines.append(_row(str(index + 1), tasks, {task}, "|", _told(place)))
    return "\n".join(lines)


def _shown(count: int, plan: Plan, cut: Cut | None) -> list[int]:
    """Return the numbers of the steps that are drawn, from 0."""
    wanted = set(range(max(0, count - END_STEPS), count))
    for mark in plan.marks[-MARKS:]:
        wanted.update(range(mark.step - AROUND, mark.step + AROUND + 1))
    if cut is not None:
        wanted.update(range(cut.step - AROUND, cut.step + AROUND + 1))
    return sorted(index for index in wanted if 0 <= index < count)


def _letter(nth: int) -> str:
    return ascii_uppercase[nth] if nth < len(ascii_uppercase) else str(nth)


def _row(step: str, tasks: Sequence[int], marked: AbstractSet[int], sign: str, text: str) -> str:
    columns = " ".join(sign if one in marked else "." for one in tasks)
    return f"  {step:>4} {columns}  {text}"


def _told(place: Place) -> str:
    source = source_of(place).split("  #")[0]
    return f"{text_of(place)}: {source}" if source else text_of(place)


def _waits_at(steps: Sequence[Step], index: int, task: int) -> Place:
    """Return where *task* waits at the step *index*. From there it will go on."""
    later: Iterator[Place] = (place for number, place in steps[index:] if number == task)
    return next(later, ("", 0, ""))
