"""What the figures are to reach: a bound for each, alone or beside another figure of the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import live, machine, memory, ssh
from benchmarks.figures import Figures, markdown, number
from benchmarks.rest import COPIES, Rest

_COLUMNS = ("", "measured", "must be", "met", "aim", "reached")
_REST = Rest()  # of a full run
_LONG_LIST = _REST.ended * COPIES
_SSH, _SSH_OUTPUT = f"{ssh.SHARED}, p50", f"{ssh.SHARED}: {ssh.OUTPUT}"
_CROWD = "a line to each of 1000 followers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A bound of a figure or, with `beside`, of its ratio to another one; an upper bound unless `least`.

    `must` and `aim` are in the figure's unit. `what` is empty where the row above says it.
    """

    what: str
    figure: str
    must: float
    aim: float | None = None
    beside: str | None = None
    least: bool = False


GOALS: Sequence[Goal] = (
    Goal(what="start", figure="start (process), p50", must=2.5, aim=1.0),
    Goal(what="", figure="start (process), p50", must=0.3, beside=_SSH),
    Goal(what="start that survives a power cut", figure="start (power), p50", must=2.5, aim=1.0),
    Goal(what="", figure="start (power), p50", must=0.3, beside=_SSH),
    Goal(what="starts by 16 callers", figure="starts by 16 callers (process)", must=400, aim=1000, least=True),
    Goal(what="start to first output byte", figure="start to first output byte, p50", must=4, aim=2),
    Goal(what="one follower", figure="one follower", must=0.5, aim=0.8, beside=machine.TLS, least=True),
    Goal(what="", figure="one follower", must=1.5, beside=_SSH_OUTPUT, least=True),
    Goal(what=live.LIVE, figure=live.LIVE, must=0.4, aim=0.7, beside=machine.TLS, least=True),
    Goal(what="10 followers in sum", figure="10 followers in sum", must=0.6, aim=0.9, beside=machine.TLS, least=True),
    Goal(what=f"{_CROWD}, p99", figure=f"{_CROWD}, p99", must=250, aim=100),
    Goal(what=f"{_CROWD}: lines lost", figure=f"{_CROWD}: lines lost", must=0),
    Goal(what=live.LINE, figure=f"{live.LINE}, p50", must=2, aim=1),
    Goal(what="new connection and a status", figure="new connection and a status, p50", must=6, aim=3),
    Goal(what="private memory by a running job", figure=memory.BOTH, must=1.5e6 / 1024, aim=0.6e6 / 1024),
    Goal(what=_REST.cpu, figure=_REST.cpu, must=0.5, aim=0),
    Goal(what=_REST.memory, figure=_REST.memory, must=150e6 / 2**20, aim=90e6 / 2**20),
    Goal(
        what="open descriptors more after 10000 ended jobs",
        figure="open descriptors more after 10000 ended jobs",
        must=0,
    ),
    Goal(what=_REST.first_page(_LONG_LIST), figure=_REST.first_page(_LONG_LIST), must=20, aim=5),
)


def table(figures: Figures) -> str:
    """The goals in Markdown, with what was measured and whether it is enough."""
    return markdown(_COLUMNS, [_cells(goal, figures) for goal in GOALS])


def _cells(goal: Goal, figures: Figures) -> Sequence[str]:
    bounds = [_bound(goal, goal.must), "" if goal.aim is None else _bound(goal, goal.aim)]
    value = figures.median(goal.figure)
    if value is not None and goal.beside is not None:
        limit = figures.median(goal.beside)
        value = None if limit is None else value / limit
    if value is None:
        return goal.what, "not measured", bounds[0], "", bounds[1], ""
    measured = figures.text(goal.figure) if goal.beside is None else f"{value:.2g} x {goal.beside}"
    aim = "" if goal.aim is None else _verdict(goal, value, goal.aim)
    return goal.what, measured or "", bounds[0], _verdict(goal, value, goal.must), bounds[1], aim


def _bound(goal: Goal, bound: float) -> str:
    return f"at {'least' if goal.least else 'most'} {number(bound)}{'' if goal.beside is None else ' x'}"


def _verdict(goal: Goal, value: float, bound: float) -> str:
    return "yes" if (value >= bound if goal.least else value <= bound) else "no"
